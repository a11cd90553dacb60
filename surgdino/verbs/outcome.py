"""What a pretraining run prints at its end: what was measured, and where everything lies."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from surgdino.engine.measuring import BEST, Probing
from surgdino.engine.plan import TrainResult
from surgdino.engine.probing import Change
from surgdino.frames.store import FrameStore
from surgdino.report.curves import TERMS

_SHOWN = 5


def print_store(console: Console, store: FrameStore) -> None:
    """One line on the frames there are, and one on each thing that was left out."""
    summary = store.summary()
    console.print(f"[bold]frames[/bold]   {summary['frames']:,} of {summary['videos']} videos")
    left_out = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in summary["left_out"].items())
    if left_out:
        console.print(f"         left out: {left_out}")
    for video, reason in summary["set_aside"].items():
        console.print(f"[yellow]set aside[/yellow] {video}: {reason}", soft_wrap=True, highlight=False)


def print_probe(console: Console, probe: Probing | None, *, held_out: bool) -> None:
    """One line on what the backbone is measured on."""
    if probe is None:
        return
    operations, tasks = probe.frames.operations, ", ".join(probe.frames.tasks) or "none"
    named = ", ".join(operations[:_SHOWN]) + (", ..." if len(operations) > _SHOWN else "")
    where = "held out of training" if held_out else "trained on as well; probe.hold_out=1 keeps one out"
    count = f"{len(operations)} operation{'s' if len(operations) != 1 else ''}"
    console.print(
        f"[bold]probe[/bold]    {len(probe.frames):,} frames; tested on {count} ({named}), {where}; labels: {tasks}",
        soft_wrap=True,
        highlight=False,
    )


def print_outcome(console: Console, result: TrainResult, picture: Path | None, page: Path | None = None) -> None:
    """Tables of the loss terms and of the backbone before and after, then the warnings, then the paths."""
    if result.status == "already finished":
        console.print(f"[bold]This run is finished[/bold] ({result.step} of {result.steps} steps); nothing was done.")
    elif result.status == "stopped":
        console.print(f"[yellow]Stopped at step {result.step} of {result.steps}; the same command continues.[/yellow]")
    if result.first and result.last:
        console.print(_losses(result))
    if result.probes.changes:
        console.print(_probes(result))
        console.print(_chosen(result), soft_wrap=True, highlight=False)
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
    changes = result.probes.changes
    after = f"step {result.probes.last_step}"
    table = Table(title="Backbone before and after", title_justify="left", title_style="bold")
    table.add_column("measure")
    for name in ("step 0", after, "change"):
        table.add_column(name, justify="right")
    intervals = any(change.difference for change in changes)
    if intervals:
        table.add_column("95 % over operations", justify="right", style="dim")
    for change in changes:
        row = [change.measure.words, change.form(change.before), change.form(change.after), _signed(change)]
        table.add_row(*row, *([change.interval] if intervals else []))
    return table


def _signed(change: Change) -> str:
    words = change.signed(change.after - change.before)
    return f"[red]{words} worse than it came[/red]" if change.fell else words


def _chosen(result: TrainResult) -> str:
    """One line on the best state by the probe."""
    probes = result.probes
    if probes.start is None or probes.last is None or probes.best_step < 0:
        return "nothing was measured that could choose a best checkpoint"
    words = f"score {probes.start.score:.3f} at step 0, {probes.last.score:.3f} at step {probes.last_step}"
    best = f"best {probes.best:.3f} at step {probes.best_step}"
    if probes.best_step == 0:
        best = "[yellow]never better than at step 0: `best` holds the weights that it started from[/yellow]"
    took = f"; measuring took {probes.seconds:.0f} s" if probes.seconds else ""
    return f"{words}, {best}{took}"


def _print_where(console: Console, result: TrainResult, picture: Path | None, page: Path | None) -> None:
    rows = {
        "backbone": result.checkpoint / "backbone.safetensors",
        "best": result.checkpoint.with_name(BEST) / "backbone.safetensors",
        "model card": result.checkpoint / "model.json",
        "metrics": result.metrics,
        "curves": picture,
        "report": page,
    }
    for label, path in rows.items():
        if path is not None and path.exists():  # never folded: people copy these
            console.print(f"[bold]{label:<10}[/bold]  {path}", soft_wrap=True, highlight=False)
