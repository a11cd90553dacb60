"""Small sets of films and label files: AutoLaparo, GraSP, HeiChole, m2cai16-tool, MultiBypass140 and PitVis."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from surgdino.datasets.card import load_card
from surgdino.datasets.synthetic.cholec80 import Operation, encode_video, mark_generated
from surgdino.paths import atomic_write, write_text

# Of one video: its place in the set, and kind of labels -> ids int [seconds], or 0/1 [seconds, classes].
Truth = Mapping[str, np.ndarray]
_OUT, _SEVERE = 12, 13  # spans of MultiBypass140 that lie across its phases
_TOOL_COLUMNS = 21  # of HeiChole's instrument files


def write_workflow(
    root: str | Path,
    dataset: str = "autolaparo",
    videos: int = 4,
    seconds: int = 6,
    fps: int = 5,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
    *,
    public_ids: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
    """Write a set in a dataset's layout under `root`; the same arguments give the same pictures and labels.

    Args:
        videos: how many; of MultiBypass140 every second is of the other hospital.
        seconds: of each.
        size: (width, height), even.
        public_ids: leave out the mark by which the operations are called demo/1, ...

    Returns:
        Video id -> kind of labels -> class ids int [seconds], or 0/1 [seconds, classes] (tools, action).
    """
    root, card, truths = Path(root), load_card(dataset), dict[str, dict[str, np.ndarray]]()
    if not public_ids:
        mark_generated(root)
    for place in range(videos):
        rng = np.random.default_rng([seed, place])
        operation = Operation(rng, seconds * fps, fps, size)
        course = operation.phases[::fps]
        classes = {"phase": card.phases, "step": card.steps, "tools": card.tools, "action": card.actions}
        truth = {
            kind: course * (2 if kind == "step" else 1) % len(names)
            if kind in ("phase", "step")
            else rng.integers(0, 2, (seconds, len(names)), np.uint8)
            for kind, names in classes.items()
            if names
        }
        name, video = _WRITERS[dataset](root, place + 1, truth, fps)
        encode_video(video, operation.images(), size, fps)
        truths[name] = truth
    if dataset == "multibypass140":
        _write_folds(root, truths)
    return truths


def _autolaparo(root: Path, number: int, truth: Truth, fps: int) -> tuple[str, Path]:
    rows = "".join(f"{second}\t{phase + 1}\n" for second, phase in enumerate(truth["phase"], start=1))
    write_text(root / f"labels/label_{number:02d}.txt", f"Frame\tPhase\n{rows}")
    return f"{number:02d}", root / f"videos/{number:02d}.mp4"


def _heichole(root: Path, number: int, truth: Truth, fps: int) -> tuple[str, Path]:
    name, count = f"Hei-Chole{number}", len(truth["phase"])
    tools = np.zeros((count, _TOOL_COLUMNS), np.uint8)
    tools[:, : truth["tools"].shape[1]] = truth["tools"]
    for kind, values in (("Phase", truth["phase"][:, None]), ("Instrument", tools), ("Action", truth["action"])):
        rows = (f"{frame}," + ",".join(map(str, values[frame // fps])) for frame in range(count * fps))
        write_text(root / f"Annotations/{kind}/{name}_Annotation_{kind}.csv", "\n".join(rows) + "\n")
    return name, root / f"Videos/Full/{name}.mp4"


def _m2cai16_tool(root: Path, number: int, truth: Truth, fps: int) -> tuple[str, Path]:
    """A row a second, numbered by its frame."""
    name, rows = f"tool_video_{number:02d}", ["\t".join(["Frame", *load_card("m2cai16_tool").tools])]
    rows += ["\t".join(map(str, [second * fps, *present])) for second, present in enumerate(truth["tools"].tolist())]
    write_text(root / f"{name}.txt", "\n".join(rows) + "\n")
    return name, root / f"{name}.mp4"


def _pitvis(root: Path, number: int, truth: Truth, fps: int) -> tuple[str, Path]:
    """At most two instruments a second; a second more than the film has, out of the patient, as in the release."""
    tools, rows = truth["tools"], ["int_video,int_time,int_step,int_instrument1,int_instrument2"]
    tools[np.cumsum(tools, axis=1) > 2] = 0
    for second, (step, present) in enumerate(zip(truth["step"], tools, strict=True)):
        first, other = [*(np.flatnonzero(present) + 1).tolist(), *([-2] if present.any() else [0]), -2][:2]
        rows.append(f"{number},{second},{step + 1},{first},{other}")
    rows.append(f"{number},{len(tools)},-1,-1,-2")
    write_text(root / f"annotations_{number:02d}.csv", "\n".join(rows) + "\n")
    return f"video_{number:02d}", root / f"video_{number:02d}.mp4"


def _multibypass140(root: Path, number: int, truth: Truth, fps: int) -> tuple[str, Path]:
    hospital, folder, short = (("strasbourg", "StrasBypass70", "SBP"), ("bern", "BernBypass70", "BBP"))[number % 2]
    name, card = f"{short}{(number + 1) // 2:02d}", load_card("multibypass140")
    spans = {"phases": _spans(truth["phase"], card.phases), "steps": _spans(truth["step"], card.steps)}
    for start, label, label_name in ((500, _OUT, "out_of_body"), (1500, _SEVERE, "severe_index")):
        spans["phases"].append({"start": start, "end": start + 1200, "label_name": label_name, "label_id": label})
    spans["phases"].sort(key=lambda span: span["start"])
    write_text(root / f"labels/{hospital}/labels_by70/{name}.mp4.json", json.dumps(spans))
    return name, root / f"{folder}/videos/{name}.mp4"


def _spans(ids: np.ndarray, names: Sequence[str]) -> list[dict[str, int | str]]:
    bounds = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    return [
        {"start": 1000 * start, "end": 1000 * end, "label_name": names[ids[start]], "label_id": int(ids[start])}
        for start, end in pairwise(bounds)
    ]


def _write_folds(root: Path, truths: Mapping[str, Truth]) -> None:
    """Two folds a hospital, each tested once on one half; the first video of the other half validates."""
    for hospital, short in (("bern", "BBP"), ("strasbourg", "SBP")):
        names = [name for name in truths if name.startswith(short)]
        for fold in range(2):
            test, rest = names[fold::2], names[1 - fold :: 2]
            parts = {"train/1fps_100": rest[1:] or rest, "val/1fps": rest[:1] if rest[1:] else [], "test/1fps": test}
            for part, videos in parts.items():
                rows = {name: _rows(name, truths[name]) for name in videos}
                folder = root / f"labels/{hospital}/labels_by70_splits/labels"
                with atomic_write(folder / f"{part}_{fold}.pickle") as temporary:
                    temporary.write_bytes(pickle.dumps(rows, protocol=4))


def _rows(name: str, truth: Truth) -> list[dict[str, int | str]]:
    return [
        {
            "Frame_id": f"{name}_{second + 1:08d}",
            "Original_frame_id": second,
            "Phase_gt": int(phase),
            "Step_gt": int(step),
            "unique_id": 10**11 + second,
        }
        for second, (phase, step) in enumerate(zip(truth["phase"], truth["step"], strict=True))
    ]


_WRITERS: dict[str, Callable[[Path, int, Truth, int], tuple[str, Path]]] = {
    "autolaparo": _autolaparo,
    "heichole": _heichole,
    "m2cai16_tool": _m2cai16_tool,
    "multibypass140": _multibypass140,
    "pitvis": _pitvis,
}


def write_grasp(
    root: str | Path, cases: Sequence[int] = (1, 2, 41), seconds: int = 4, seed: int = 0
) -> dict[str, Truth]:
    """Write GraSP_1fps under `root`, with operations of its own names; case -> class ids of each second, as above."""
    root, card, truths = Path(root), load_card("grasp"), dict[str, Truth]()
    for case in cases:
        name, rng = f"CASE{case:03d}", np.random.default_rng([seed, case])
        operation = Operation(rng, seconds, 1, (64, 48))
        truths[name] = {"phase": operation.phases, "step": operation.phases * 2}
        folder = root / f"frames/{name}"
        folder.mkdir(parents=True, exist_ok=True)
        for second, image in enumerate(operation.images()):
            Image.fromarray(image).save(folder / f"{second:05d}.jpg")
    half = [name for name in truths if int(name[4:]) < 40]
    parts = {"train": half, "test": [n for n in truths if n not in half], "fold1": half[::2], "fold2": half[1::2]}
    for part, names in parts.items():
        images = [f"{name}/{second:05d}.jpg" for name in names for second in range(seconds)]
        ids = [
            {"phases": int(phase), "steps": int(step)}
            for name in names
            for phase, step in zip(truths[name]["phase"], truths[name]["step"], strict=True)
        ]
        content = {
            "phases_categories": [
                {"id": k, "name": each, "supercategory": "phase"} for k, each in enumerate(card.phases)
            ],
            "steps_categories": [{"id": k, "name": each, "supercategory": "step"} for k, each in enumerate(card.steps)],
            "images": [{"id": k, "file_name": image, "video_name": image[:7]} for k, image in enumerate(images)],
            "annotations": [
                {"id": k, "image_id": k, "image_name": image, **label}
                for k, (image, label) in enumerate(zip(images, ids, strict=True))
            ],
        }
        write_text(root / f"annotations/grasp_long-term_{part}.json", json.dumps(content))
    return truths
