"""Settings, versions and cost: what a reader needs to repeat the run and to judge what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from surgdino.report.blocks import Block, Code, Table
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section
from surgdino.wording import duration


class Settings(Section):
    """Every setting of each run; of two runs first those in which they differ."""

    id, title, order = "settings", "Settings, versions, cost", 60

    def blocks(self, records: Sequence[RunRecord]) -> list[Block]:
        """The differences of two runs, then each run."""
        own = super().blocks(records)
        if len(records) == 1:
            return own
        flat = [_flat(record.config) for record in records]
        keys = [key for key in {**flat[0], **flat[1]} if str(flat[0].get(key)) != str(flat[1].get(key))]
        rows = [[key, *(str(each.get(key, "not set")) for each in flat)] for key in keys]
        return [Table(("setting", *(record.name for record in records)), rows, "Only settings that differ."), *own]

    def of_run(self, record: RunRecord) -> list[Block]:
        """Cost and versions, the command, every setting."""
        blocks: list[Block] = [Table(("", ""), [[*pair] for pair in {**_cost(record), **_versions(record)}.items()])]
        if command := record.environment.get("command"):
            blocks.append(Code(str(command)))
        text = yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True)
        return [*blocks, Code(text, summary="every setting, resolved")]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _cost(record: RunRecord) -> dict[str, str]:
    rows = [row for row in record.training_rows if row.get("images_per_second")]
    if not rows:
        return {}
    before = [0, *(row["step"] for row in rows[:-1])]
    images = [_batch(record, row) * (row["step"] - start) for row, start in zip(rows, before, strict=True)]
    seconds = sum(max(count, 0) / row["images_per_second"] for row, count in zip(rows, images, strict=True))
    peak = max(row.get("memory_mb", 0) for row in rows)
    return {
        "training time": duration(seconds),
        "images a second": f"{sum(images) / seconds:.1f}" if seconds else "",
        "peak memory": f"{peak / 1024:.1f} GiB",
    }


def _batch(record: RunRecord, row: Mapping[str, Any]) -> int:
    """Images of the steps of a line; a phase of the run may have its own."""
    usual, phases = record.section("train").get("batch_size") or 0, record.config.get("phases")
    own = phases[int(row["phase"]) - 1] if isinstance(phases, list) and 0 < row.get("phase", 0) <= len(phases) else {}
    return _flat(own).get("train.batch_size", usual) if isinstance(own, Mapping) else usual


def _versions(record: RunRecord) -> dict[str, str]:
    environment = record.environment
    packages = environment.get("packages") or {}
    shown = {key: environment.get(key) for key in ("surgdino", "git_revision", "python", "machine", "data_hash")}
    shown |= {"packages": ", ".join(f"{name} {number}" for name, number in packages.items() if number)}
    return {key.replace("_", " "): str(value) for key, value in shown.items() if value}
