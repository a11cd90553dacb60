"""What makes two calls one run: the settings that its saved state holds, and in what they may differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeGuard

from surgdino.config import shipped_settings
from surgdino.engine.guide import fingerprint
from surgdino.engine.plan import Phase, TrainPlan
from surgdino.errors import SurgdinoError

# A change of these makes no other run: they may change from one call to the next.
_OFTEN = ("checkpoint_every", "checkpoint_share", "checkpoint_minutes", "log_every")
FREE_SETTINGS = {"accumulate", *_OFTEN, "ship", "steps", "epochs", "until", "patience"}
_PHASE = "phases["


def settings_of(plan: TrainPlan) -> dict[str, Any]:
    """What a resumed run must have the same: the sections as the first phase has them, and where later ones differ."""
    first, *later = plan.stages
    sections = _sections(first)
    model = {key: value for key, value in plan.model.items() if key != "weights"}
    data = {"hash": plan.data_hash, "frames": len(plan.store)}
    # Other frames measure other things: step 0 could not be compared with.
    probe = None if plan.probe is None else plan.probe.frames.fingerprint
    sections |= {"method": plan.method, "model": model, "data": data, "probe": probe, "steps": plan.stages[-1].stop}
    if first.guides:
        sections["guide"] = fingerprint(first.guides, plan.facts)
    phases = {f"{_PHASE}{k}]": {"start": each.start, **changes(first, each)} for k, each in enumerate(later, 1)}
    return _plain({**sections, **phases})


def _sections(phase: Phase) -> dict[str, Any]:
    """What a phase has of its own and a resumed run must have the same."""
    train = {key: value for key, value in asdict(phase.train).items() if key not in FREE_SETTINGS}
    augment = {key: value for key, value in phase.augment.items() if key != "on"}  # the same draws, but for rounding
    return {"train": train, "crops": asdict(phase.crops), "augment": augment}


def changes(first: Phase, phase: Phase) -> dict[str, Any]:
    """Dotted key -> value, of the settings in which a phase differs from the first one."""
    one, other = ({**_sections(each), "guide": each.guides} for each in (first, phase))
    return {key: after for key, _, after in differences(_plain(one), _plain(other))}


def _plain(value: Any) -> Any:
    """Mappings as dicts and sequences as lists, so that what was saved equals what was read from YAML."""
    if hasattr(value, "items"):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def with_later(saved: Mapping[str, Any], names: Collection[str], verb: str = "pretrain") -> dict[str, Any]:
    """The settings of an earlier run; keys of the sections `names` that came later are as they are by default."""
    train = {key: v for key, v in shipped_settings("", verb)["train"].items() if key not in FREE_SETTINGS}
    later = {"data": shipped_settings("", "data"), "crops": shipped_settings("", "crops"), "train": train}
    sections = {name: {**_plain(later[name]), **saved[name]} for name in names if isinstance(saved.get(name), Mapping)}
    return {**saved, **sections}


def check_settings(plan: TrainPlan, state: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Raise where a saved state is of a run with other settings; phases that have not begun may be any."""
    saved = with_later(state["settings"], ("crops", "train"))
    changed = list(differences(_until(saved, state["step"]), _until(settings_of(plan), state["step"])))
    for key, before, after in changed:
        if key == "steps":
            stretched = "" if plan.phases else ": its schedules are stretched from here on"
            warn(f"the run now ends at step {after} instead of {before}{stretched}")
    changed = [row for row in changed if row[0] != "steps"]
    if changed:
        key, before, after = changed[0]
        more = f" (and {len(changed) - 1} more: {', '.join(row[0] for row in changed[1:])})" if changed[1:] else ""
        raise SurgdinoError(
            f"this run was begun with another {key}{more}",
            file=plan.folder,
            expected=before,
            found=after,
            fix="use the settings it began with, or another run.dir",
        )


def _until(settings: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Without phases that had not begun before that step."""
    return {key: v for key, v in settings.items() if not (key.startswith(_PHASE) and v["start"] >= step)}


def differences(saved: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, saved value, present value) for every leaf in which two nested settings differ.

    Lists of the same number of mappings are compared entry by entry: `data.also[0].fps`.
    """
    for key in sorted(saved.keys() | now.keys()):
        before, after = saved.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif _mappings(before) and _mappings(after) and len(before) == len(after):
            for place, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from differences(one, other, f"{prefix}{key}[{place}].")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _mappings(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
