"""What a pretraining run prints at its end: what was measured, and where everything lies."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from surgdino.engine.plan import TrainResult
from surgdino.frames.store import FrameStore
from surgdino.report.curves import TERMS

PROBES = (
    ("effective_rank", "effective rank of the features", "{:.1f}"),
    ("operation_knn", "neighbours from the same operation", "{:.1%}"),
    ("operation_chance", "  by chance", "{:.1%}"),
)


def print_store(console: Console, store: FrameStore) -> None:
    """One line on the frames there are, and one on each thing that was left out."""
    summary = store.summary()
    console.print(f"[bold]frames[/bold]   {summary['frames']:,} of {summary['videos']} videos")
    left_out = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in summary["left_out"].items())
    if left_out:
        console.print(f"         left out: {left_out}")
    for video, reason in summary["set_aside"].items():
        console.print(f"[yellow]set aside[/yellow] {video}: {reason}", soft_wrap=True, highlight=False)


def print_outcome(console: Console, result: TrainResult, picture: Path | None, page: Path | None = None) -> None:
    """Tables of the loss terms and of the backbone before and after, then the warnings, then the paths."""
    if result.status == "already finished":
        console.print(f"[bold]This run is finished[/bold] ({result.step} of {result.steps} steps); nothing was done.")
    elif result.status == "stopped":
        console.print(f"[yellow]Stopped at step {result.step} of {result.steps}; the same command continues.[/yellow]")
    if result.first and result.last:
        console.print(_losses(result))
    if result.probe_start and result.probe_end:
        console.print(_probes(result))
    for warning in result.warnings:
        console.print(f"[yellow]![/yellow] {warning}")
    if result.skipped:
        console.print(f"[yellow]![/yellow] {result.skipped} steps were left out: their gradient was not finite")
    _print_where(console, result, picture, page)


def _losses(result: TrainResult) -> Table:
    table = Table(title="Objective", title_justify="left", title_style="bold")
    table.add_column("term")
    for name in ("first", "last", "if it collapsed"):
        table.add_column(name, justify="right", style="dim" if name.startswith("if") else None)
    for key in [*TERMS, *sorted(result.collapse.keys() - TERMS.keys())]:
        if key in result.first and key in result.last:
            collapse = f"{result.collapse[key]:.4f}" if key in result.collapse else ""
            table.add_row(TERMS.get(key, key), f"{result.first[key]:.4f}", f"{result.last[key]:.4f}", collapse)
    return table


def _probes(result: TrainResult) -> Table:
    table = Table(title="Backbone, on frames of the store", title_justify="left", title_style="bold")
    table.add_column("measure")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for key, label, form in PROBES:
        if key in result.probe_start and key in result.probe_end:
            table.add_row(label, form.format(result.probe_start[key]), form.format(result.probe_end[key]))
    return table


def _print_where(console: Console, result: TrainResult, picture: Path | None, page: Path | None) -> None:
    rows = {
        "backbone": result.checkpoint / "backbone.safetensors",
        "model card": result.checkpoint / "model.json",
        "metrics": result.metrics,
        "curves": picture,
        "report": page,
    }
    for label, path in rows.items():
        if path is not None and path.exists():  # never folded: people copy these
            console.print(f"[bold]{label:<10}[/bold]  {path}", soft_wrap=True, highlight=False)
