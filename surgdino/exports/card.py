"""The model card of an export: README.md with a YAML head, as hubs read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from surgdino.exports.graph import Subject

_FEATURES = "Features for research on surgical video: frozen, or as the start of fine-tuning."
_ANSWERS = "Predictions for research on surgical video, on pictures like those that it was trained on."
_LIMITS = """\
## Intended use and limits
{} Not a medical device: no decision about a patient may rest on it. Test on operations that are not listed above and
that nothing was chosen on. Other hospitals, cameras and procedures than those of the data can give other figures."""
_PIPELINES = {"segmentation": "image-segmentation", "instances": "object-detection"}
_CLASSIFIES = "image-classification"
_NAMED = 20  # classes in the card; programs read all of them


def card_of(subject: Subject, use: str, library: str, compared: Sequence[str]) -> str:
    """Start, data, licences, figures, use and limits.

    Args:
        use: Python that loads the folder.
        library: what reads it, as the hub calls it.
        compared: what was compared with the run before the folder was there, a sentence each.
    """
    info, head = subject.model.info, subject.head
    method = (info.get("method") or {}).get("name")
    pipeline = "image-feature-extraction" if head is None else _PIPELINES.get(head.task, _CLASSIFIES)
    tags = ["surgical-video", *([f"surgical-{head.task}"] if head else []), "self-supervised-learning"]
    front = {
        "library_name": library,
        "pipeline_tag": pipeline,
        "license": "other",
        "license_name": "see-below",
        "tags": [*tags, *([method] if method else [])],
    }
    side, mean, std = info["image_size"], info["mean"], info["std"]
    side = subject.graphs[0].row[1] if head and head.window else side
    pictures = (
        f"Pictures: {'windows of' if head and head.window else 'whole, resized to'} {side} x {side} pixels, RGB from 0 "
        f"to 1, less {mean}, divided by {std}. surgdino cuts black borders off first and shrinks by area averages."
    )
    name = info["name"] if head is None else f"{head.task} with {info['name']}"
    parts = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}, adapted to surgical video",
        "## What it is\n" + "\n".join(f"- {line}" for line in (*_facts(info), *_of_head(subject))),
        "## Licences\n" + "\n".join(f"- {line}" for line in _licences(info)),
        "## Figures\n" + "\n".join((_figures(info), *_results(subject))),
        "\n".join((f"## Use\n```python\n{use}\n```", pictures, *(head.remarks if head else ()), *compared)),
        _LIMITS.format(_FEATURES if head is None else _ANSWERS),
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


def _of_head(subject: Subject) -> Iterator[str]:
    if head := subject.head:
        yield from (f"{what}: {said}" for what, said in {"Task": head.task, **head.facts}.items())
        more = f" and {len(head.classes) - _NAMED} more" if len(head.classes) > _NAMED else ""
        yield f"Classes, from 0: {'; '.join(head.classes[:_NAMED])}{more}"


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


def _results(subject: Subject) -> Iterator[str]:
    """Every number of results.json with its protocol, its interval and the operations that it is of."""
    if subject.head is None:
        return
    results = subject.head.results
    if not results:
        yield "The task was not tested."
        return
    if stamp := (results.get("leakage") or {}).get("stamp"):
        yield f"**{stamp}**"
    yield f"Tested on {results.get('operations')} operations, whole run, before the export:"
    yield "\n| measure | protocol | value | 95 % interval over operations | operations |"
    yield "| --- | --- | --- | --- | --- |"
    for row in results.get("scores") or []:
        value, (low, high) = row.get("value"), row.get("interval_95") or (None, None)
        interval = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else "-"
        shown = "-" if value is None else f"{value:.3f}"
        yield f"| {row['name']} | {row['protocol']} | {shown} | {interval} | {row.get('operations', '-')} |"
    yield ""
