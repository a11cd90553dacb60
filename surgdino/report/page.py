"""The report as one HTML file: no network, no script, no patient frame unless asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surgdino import __version__
from surgdino.paths import atomic_write
from surgdino.report.blocks import Section
from surgdino.report.evidence import changes, verdict
from surgdino.report.record import RunRecord
from surgdino.report.sections import build_sections

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(records: Sequence[RunRecord], target: Path, *, learned: Section | None = None) -> Path:
    """Write the page of one run, or of two side by side.

    Args:
        records: one or two runs.
        learned: the section with pictures, where frames may be shown; it goes after the curves.

    Raises:
        SurgdinoError: the file system refused.
    """
    sections = build_sections(records)
    if learned is not None:
        place = next((i + 1 for i, section in enumerate(sections) if section.id == "curves"), 0)
        sections.insert(place, learned)
    text = _render(
        title=" and ".join(record.name for record in records),
        kind=_kind(records),
        verdict=_verdict(records),
        stamps=[stamp for record in records for stamp in _stamps(record)],
        facts=_facts(records[0]) if len(records) == 1 else [],
        sections=sections,
        frames=learned is not None,
    )
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _render(**values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    blocks = environment.get_template("blocks.html").module
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        **values, style=style, version=__version__, render=lambda block: getattr(blocks, block.kind)(block)
    )


def _kind(records: Sequence[RunRecord]) -> str:
    if len(records) > 1:
        return "two runs side by side"
    task = (records[0].config.get("task") or {}).get("name")
    return f"fine-tuning, task {task}" if task else "pretraining on surgical video"


def _verdict(records: Sequence[RunRecord]) -> dict[str, str]:
    from surgdino.report.comparison import compared, headline

    if len(records) > 1:
        tone, sentence = compared(records[0], records[1])
    elif records[0].results is not None:
        tone, sentence = headline(records[0])
    else:
        tone, sentence = verdict(changes(records[0].rows))
    return {"tone": tone, "sentence": sentence}


def _stamps(record: RunRecord) -> list[str]:
    """What a result on operations that were seen before must never go without."""
    stamp = ((record.results or {}).get("leakage") or {}).get("stamp")
    return [f"{record.name}: {stamp}"] if stamp else []


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    model = record.model
    videos = record.data.get("videos", [])
    facts = {
        "backbone": model.get("name"),
        "method": (model.get("method") or {}).get("name"),
        "data": (record.config.get("dataset") or {}).get("name"),
        "operations": len({video["operation"] for video in videos}) or None,
        "frames": f"{sum(video['frames'] for video in videos):,}" if videos else None,
        "steps": model.get("steps"),
        "batch": (record.config.get("train") or {}).get("batch_size"),
        "seed": (record.config.get("train") or {}).get("seed"),
        "written": (model.get("created") or "")[:16].replace("T", " ") or None,
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]
