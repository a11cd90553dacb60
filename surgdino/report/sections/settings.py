"""Settings, versions and cost: what a reader needs to repeat the run and to judge whether he can afford it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from surgdino.report.blocks import Block, Code, Heading, Section, Table
from surgdino.report.record import RunRecord

ORDER = 60


def build(records: Sequence[RunRecord]) -> Section:
    """Every setting of each run; of two runs first those in which they differ."""
    blocks: list[Block] = []
    if len(records) > 1:
        blocks += _differences(records)
    for record in records:
        if len(records) > 1:
            blocks.append(Heading(record.name))
        rows = [[name, value] for name, value in {**_cost(record), **_versions(record)}.items()]
        blocks.append(Table(("", ""), rows))
        if command := record.environment.get("command"):
            blocks.append(Code(str(command)))
        text = yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True)
        blocks.append(Code(text, summary="every setting, resolved"))
    return Section("settings", "Settings, versions, cost", blocks)


def _differences(records: Sequence[RunRecord]) -> list[Block]:
    flat = [dict(_flat(record.config)) for record in records]
    keys = [
        key for key in dict.fromkeys(key for each in flat for key in each) if len({str(f.get(key)) for f in flat}) > 1
    ]
    rows = [[key, *(str(each.get(key, "not set")) for each in flat)] for key in keys]
    return [Table(("setting", *(record.name for record in records)), rows, "Only settings that differ.")]


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, inner in value.items():
        pairs += _flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else [(f"{prefix}{key}", inner)]
    return pairs


def _cost(record: RunRecord) -> dict[str, str]:
    windows = [row for row in record.windows if row.get("images_per_second")]
    if not windows:
        return {}
    batch = (record.config.get("train") or {}).get("batch_size") or 0
    before = [0, *(row["step"] for row in windows[:-1])]
    steps = [row["step"] - start for row, start in zip(windows, before, strict=True)]
    seconds = sum(max(step, 0) * batch / row["images_per_second"] for row, step in zip(windows, steps, strict=True))
    peak = max(row.get("memory_mb", 0) for row in windows)
    cost = {
        "training time": duration(seconds),
        "images a second": f"{sum(steps) * batch / seconds:.1f}" if seconds else "",
    }
    return {**cost, "peak memory": f"{peak / 1024:.1f} GiB"}


def duration(seconds: float) -> str:
    """`3 h 12 min`, `4 min 10 s`, `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _versions(record: RunRecord) -> dict[str, str]:
    environment = record.environment
    packages = environment.get("packages") or {}
    shown = {key: environment.get(key) for key in ("surgdino", "git_revision", "python", "machine", "data_hash")}
    shown |= {"packages": ", ".join(f"{name} {number}" for name, number in packages.items() if number)}
    return {key.replace("_", " "): str(value) for key, value in shown.items() if value}
