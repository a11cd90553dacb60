"""The model card of an exported backbone: README.md with a YAML head, as hubs read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from surgdino.backbone.checkpoint import LoadedBackbone

_LIMITS = """\
## Intended use and limits
Features for research on surgical video: frozen, or as the start of fine-tuning. Not a medical device: no decision about
a patient may rest on it. Test on operations that are not listed above and that nothing was chosen on. Other hospitals,
cameras and procedures than those of the data can give other figures."""


def card_of(model: LoadedBackbone, use: str, difference: float) -> str:
    """Start, data, licences, figures, use and limits.

    Args:
        use: Python that loads the folder.
        difference: the largest of any feature, as a share of the largest one, between the checkpoint and the export.
    """
    info = model.info
    method = (info.get("method") or {}).get("name")
    head = {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "license": "other",
        "license_name": "see-below",
        "tags": ["surgical-video", "self-supervised-learning", *([method] if method else [])],
    }
    side, mean, std = info["image_size"], info["mean"], info["std"]
    parts = (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {info['name']}, adapted to surgical video",
        "## What it is\n" + "\n".join(f"- {line}" for line in _facts(info)),
        "## Licences\n" + "\n".join(f"- {line}" for line in _licences(info)),
        "## Figures\n" + _figures(info),
        f"## Use\n```python\n{use}\n```\n"
        f"Pictures: whole, resized to {side} x {side} pixels, RGB from 0 to 1, less {mean}, divided by {std}.\n"
        f"Features differ from the checkpoint's by at most {difference:.1e} of the largest one, over random pictures.",
        _LIMITS,
    )
    return "\n\n".join(parts) + "\n"


def _facts(info: Mapping[str, Any]) -> Iterator[str]:
    start = info.get("initial_weights") or {}
    named = start.get("known_as") or (f"a file with SHA-256 {start['sha256']}" if start.get("sha256") else None)
    yield f"Architecture: timm's `{info['timm']}`, patches of {info['patch_size']} pixels, {info['embed_dim']} features"
    yield f"Start: {named or 'random weights'}"
    if info.get("steps") is not None:
        method = (info.get("method") or {}).get("name", "unknown")
        images = info.get("batch_size", "?")
        yield f"Pretraining: {method}, {info['steps']:,} steps of {images} images, seed {info.get('seed')}"
    names = info.get("operations") or []
    datasets = [str(each["name"]) for each in info.get("datasets") or []] or [str(info.get("dataset") or "unknown")]
    yield f"Data: {', '.join(datasets)}; {_operations(names)}"
    if info.get("chosen_on"):
        yield f"Chosen on: {_operations(info['chosen_on'])}"
    for line in info.get("history_unknown") or []:
        yield f"Not known: {line}"


def _operations(names: Sequence[str]) -> str:
    """How many, and which of them the world knows: a hospital's own are counted and not named."""
    public = sorted(name for name in names if "/" in name and not name.startswith("own/"))
    own = len(names) - len(public)
    parts = [f"{len(public)} public ({', '.join(public)})"] if public else []
    parts += [f"{own} of its makers' own"] if own or not public else []
    return f"{len(names)} operations: {' and '.join(parts)}" if names else "no operation"


def _licences(info: Mapping[str, Any]) -> Iterator[str]:
    start = (info.get("initial_weights") or {}).get("licence")
    yield f"Weights it began from: {start or 'not recorded; ask whoever made them'}"
    yield f"Data it was trained on: {info.get('dataset_licence') or 'not recorded; ask whoever recorded them'}"
    yield "Whether weights may be passed on where data may not is for the makers to settle before they do."


def _figures(info: Mapping[str, Any]) -> str:
    probe = info.get("probe") or {}
    if probe.get("score") is None:
        return "None were measured during pretraining."
    means = ", ".join(probe.get("score_is_mean_of") or [])
    return (
        f"Mean of probes on held-out operations ({means}): {100 * probe['score_at_step_0']:.1f} % before, "
        f"{100 * probe['score']:.1f} % after."
    )
