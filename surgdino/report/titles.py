"""What a page is called: `ViT-Ti/16 on Cholec80, 6 operations`, and not after its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from surgdino.discovery import files
from surgdino.report.evidence import headline_row, probe_rows, since_start
from surgdino.report.record import RunRecord
from surgdino.wording import capital, counted

_VIT = re.compile(r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)(?:_(?P<rest>.+))?")
_SIZES = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H", "giant": "g"}
_HEAD = re.compile(r"#\s*(?P<name>[^:\n,]{2,34}?)(?:\s*\([^)\n]*\))?:\s")  # `# Cholec80: 80 laparoscopic ...`


def title_of(records: Sequence[RunRecord]) -> str:
    """The page's name; two runs of one kind are called so."""
    titles = [_title(record) for record in records]
    if len(titles) == 1:
        return titles[0]
    return " and ".join(titles) if titles[0] != titles[1] else f"Two runs: {titles[0]}"


def model_name(name: str) -> str:
    """`vit_small_patch14_dinov2` as `ViT-S/14 dinov2`; what is no such name stays as it is."""
    found = _VIT.match(name)
    if not found or found["size"] not in _SIZES:
        return name
    rest = f" {found['rest']}" if found["rest"] else ""
    return f"ViT-{_SIZES[found['size']]}/{found['patch']}{rest}"


def dataset_name(name: str) -> str:
    """A dataset as its card's first line writes it: `cholect50` as `CholecT50`."""
    if name == "folder":
        return "own videos"
    card = files("datasets").get(name)
    found = _HEAD.match(card.read_text(encoding="utf-8")) if card else None
    return found["name"] if found else name


def _title(record: RunRecord) -> str:
    data = [str(record.section("dataset").get("name") or "")]
    data += [str(entry.get("dataset")) for entry in record.section("data").get("also") or () if isinstance(entry, dict)]
    count, what = (
        _tested(record),
        model_name(str(record.model.get("name") or record.section("model").get("name") or "")),
    )
    if record.benchmark is not None:
        data, names = list(record.benchmark["datasets"]), list(record.benchmark["backbones"])
        what = " and ".join(names) if len(names) < 4 else f"{len(names)} backbones"
    on = " and ".join(dict.fromkeys(dataset_name(name) for name in data if name))
    if record.curation is not None:
        return f"{capital(on)}, {counted(len({*record.curation.operations}), 'operation')}"
    title = " on ".join(part for part in (what, on) if part) or record.name
    return f"{title}, {counted(count, 'operation')}" if count else title


def _tested(record: RunRecord) -> int:
    """How many operations its numbers come from; of a run that measured nothing, that it learnt from."""
    if row := headline_row(record):
        return int(row["operations"])
    if record.benchmark is not None:
        return sum(int(facts["tested"]) for facts in record.benchmark["datasets"].values())
    measured = {op for judged in since_start(record.rows) for op in judged.change.by_operation}
    if measured or probe_rows(record.rows):
        return len(measured)
    videos: Sequence[Mapping[str, Any]] = record.data.get("videos", ())
    return len({video["operation"] for video in videos})
