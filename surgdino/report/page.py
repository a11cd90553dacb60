"""The report as one HTML file: no network, no script, no patient frame unless asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surgdino import __version__
from surgdino.console import warn
from surgdino.errors import shown
from surgdino.paths import write_text
from surgdino.report.blocks import Block, Paragraph
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section, all_sections
from surgdino.report.shrink import shrink
from surgdino.report.titles import model_name, title_of
from surgdino.report.verdict import Verdict, verdict_of
from surgdino.wording import counted

# Escape codes, what turns the direction of a line, and what no UTF-8 file can hold, from names and sentences of a run.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TEMPLATES = Path(__file__).parent / "templates"


def write_page(
    records: Sequence[RunRecord],
    target: Path,
    *,
    pictures: Sequence[Section] = (),
    title: str = "",
    kind: str = "",
    verdict: Verdict | None = None,
) -> Path:
    """Write the page of one run, or of two side by side.

    Args:
        records: one or two runs.
        pictures: the sections with pictures of frames, where frames may be shown; they stand in for those of their id.
        title, kind, verdict: of what is no run; those of the runs by default.

    Raises:
        SurgdinoError: the file system refused.
    """
    by_id = {section.id: section for section in [*all_sections(), *pictures]}
    sections = sorted(by_id.values(), key=lambda section: section.order)
    text = _render(
        title=title or title_of(records),
        folder=" and ".join(record.name for record in records),
        kind=kind or _kind(records),
        verdict=verdict or verdict_of(records),
        stamps=[
            (tone, f"{record.name}: {stamp}" if len(records) > 1 else stamp)
            for record in records
            for tone, stamp in _stamps(record)
        ],
        facts=_facts(records[0]) if len(records) == 1 else [],
        sections=[(section, blocks) for section in sections if (blocks := _blocks(section, records))],
        frames=_frames_in(records) if pictures else "no patient frames",
    )
    return write_text(target, shrink(_CONTROL.sub(lambda found: shown(found.group()), text)))


def tried(write: Callable[[], Path]) -> Path | None:
    """The page that `write` writes; a failure costs the page and a warning, not what was done before."""
    try:
        return write()
    except Exception as error:
        warn(f"the report could not be written: {type(error).__name__}: {error}")
        return None


def _render(**values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    macros: dict[str, Any] = {}  # one a kind of block: `table`, `charts`, ...
    environment.globals["render"] = lambda block: macros[type(block).__name__.lower()](block)
    macros |= vars(environment.get_template("blocks.html").module)
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(**values, style=style, version=__version__)


def _blocks(section: Section, records: Sequence[RunRecord]) -> list[Block]:
    """A section's content, or a sentence in its place: what is odd in a run costs no more than its own part."""
    try:
        return section.blocks(records)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
        return [Paragraph(f"This part could not be shown: a file of the run holds an odd value. {fault}", note=True)]


def _frames_in(records: Sequence[RunRecord]) -> str:
    if all(record.generated for record in records):
        return "generated frames included, which show nobody"
    return "patient frames included: handle it as patient data"


def _stamps(record: RunRecord) -> list[tuple[str, str]]:
    """(tone, sentence): what numbers on operations that were seen, or may have been, must be shown with."""
    found = []
    results = record.results or record.benchmark or {}
    for what, known in (("", results.get("leakage")), ("Probes: ", record.model.get("probe_leakage"))):
        leakage = known or {}
        if stamp := leakage.get("stamp"):
            tone = "unknown" if leakage.get("state") == "unknown" else "shared"
            found.append((tone, f"{what}{stamp}"))
    return [*found, *(("shared", line) for line in record.left_out)]


def _kind(records: Sequence[RunRecord]) -> str:
    if len(records) > 1:
        return "two runs side by side"
    if records[0].curation is not None:
        return "curation of an archive"
    if records[0].benchmark is not None:
        return "benchmark of backbones"
    task = records[0].section("task").get("name")
    if records[0].evaluated:
        return f"evaluation, task {task}"
    return f"fine-tuning, task {task}" if task else "pretraining on surgical video"


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    model, train, results = record.model, record.section("train"), record.results or {}
    if (curation := record.curation) is not None:
        return [
            ("recordings", f"{len(curation.videos):,}"),
            ("frames", f"{len(curation):,}"),
            ("kept", f"{int(curation.keep.sum()):,}"),
        ]
    if (benchmark := record.benchmark) is not None:
        backbones = ((name, model_name(what)) for name, what in benchmark["backbones"].items())
        return [("suite", benchmark["suite"]), *backbones]
    videos = record.data.get("videos", [])
    names = {video["operation"] for video in videos}
    facts = {
        "frames": f"{sum(video['frames'] for video in videos):,} of {counted(len(names), 'operation')}"
        if videos
        else None,
        "method": (model.get("method") or {}).get("name"),
        "steps": model.get("steps"),
        "batch": train.get("batch_size"),
        "folds": len(results.get("folds", ())) or None,
        "seed": ", ".join(map(str, results.get("seeds", ()))) or train.get("seed"),
        "written": (model.get("created") or "")[:16].replace("T", " ") or None,
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]
