"""A small set in CholecT50's or CholecT45's own layout, generated; the pictures are those of the synthetic Cholec80.

root/videos/VID01/000000.png, root/labels/VID01.json, root/label_mapping.txt           CholecT50
root/data/VID01/000000.png, root/triplet|instrument|verb|target/VID01.txt, root/dict/  CholecT45
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.synthetic.cholec80 import Operation, mark_generated
from surgdino.datasets.synthetic.tools import TOOLS
from surgdino.datasets.triplet_files import ROW
from surgdino.datasets.triplets import COLUMNS, TASKS, triplet_table, vocabulary
from surgdino.paths import write_text


def write_cholect50(
    root: str | Path,
    videos: Sequence[int] = (1, 2, 4),
    frames: int = 24,
    size: tuple[int, int] = (160, 96),
    seed: int = 0,
    *,
    layout: Literal["cholect50", "cholect45"] = "cholect50",
    sparse: bool = False,
    suffix: str = ".png",
    public_ids: bool = False,
) -> dict[int, dict[int, list[int]]]:
    """Write a synthetic set under `root`. The same arguments give the same files.

    A frame's triplets follow from the tools that are visible in it and from its phase, so that they can be learnt.

    Args:
        videos: numbers of the operations.
        frames: seconds of each, one picture a second.
        size: (width, height) of the first video; with `sparse`, every further one is a little larger.
        layout: which of the two releases.
        sparse: as in the challenge's validation release: gaps in the numbers, and every seventh picture without
            annotation.
        suffix: `.png` or `.jpg`.
        public_ids: as in `write_cholec80`.

    Returns:
        Video number -> annotated frame -> ids of its triplets.
    """
    root, card = Path(root), load_card(layout)
    truth: dict[int, dict[int, list[int]]] = {}
    if not public_ids:
        mark_generated(root)
    for place, number in enumerate(videos):
        scale = 1 + place / 8 if sparse else 1
        operation = Operation(
            np.random.default_rng([seed, number]), frames, 1, (round(size[0] * scale), round(size[1] * scale))
        )
        kept = [f for f in range(frames) if not sparse or f % 5 not in (1, 2)]
        folder = root / ("videos" if layout == "cholect50" else "data") / f"VID{number:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        for frame, image in enumerate(operation.images()):
            if frame in kept:
                cv2.imwrite(str(folder / f"{frame:06d}{suffix}"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        annotated = [frame for place, frame in enumerate(kept) if not sparse or place % 7 != 6]
        truth[number] = {frame: _triplets(operation, frame, card) for frame in annotated}
        if layout == "cholect50":
            _write_json(root / "labels" / f"VID{number:02d}.json", number, truth[number], operation.phases, card)
        else:
            _write_text(root, f"VID{number:02d}", truth[number], card)
    _write_tables(root, layout, card)
    return truth


def _triplets(operation: Operation, frame: int, card: Card) -> list[int]:
    """The phase chooses what a visible tool does."""
    table = triplet_table(card)
    found = []
    for tool in np.flatnonzero(operation.tools[frame, : len(card.instruments)]):
        known = np.flatnonzero(table[:, 1] == card.instruments.index(TOOLS[tool].lower()))
        found.append(int(known[operation.phases[frame] % len(known)]))
    return sorted(set(found))


def _write_json(path: Path, number: int, truth: dict[int, list[int]], phases: np.ndarray, card: Card) -> None:
    table = triplet_table(card)
    annotations: dict[str, list[list[Any]]] = {}
    for frame, triplets in truth.items():
        phase = int(phases[frame])
        rows = [_row(table[triplet, :4].tolist(), phase) for triplet in triplets]
        annotations[str(frame)] = rows or [_row([-1, -1, -1, -1], phase)]
    categories = {task: {str(i): name for i, name in enumerate(names)} for task, names in vocabulary(card).items()}
    content = {
        "categories": categories,
        "video": number,
        "fps": 1,
        "num_frames": len(truth),
        "annotations": annotations,
    }
    write_text(path, json.dumps(content))


def _row(ids: list[int], phase: int) -> list[Any]:
    triplet, instrument, verb, target = ids
    box = [-1.0] * 4  # absent, as in the full release
    row = [triplet, instrument, 1, *box, verb, target, 1, *box, phase]
    assert len(row) == ROW
    return row


def _write_text(root: Path, name: str, truth: dict[int, list[int]], card: Card) -> None:
    table, names = triplet_table(card), vocabulary(card)
    for column, task in enumerate(TASKS):
        rows = []
        for frame, triplets in truth.items():
            flags = np.zeros(len(names[task]), int)
            flags[table[triplets, column]] = 1
            rows.append(",".join(map(str, (frame, *flags))))
        write_text(root / task / f"{name}.txt", "\n".join(rows) + "\n")


def _write_tables(root: Path, layout: str, card: Card) -> None:
    rows = [f"# {', '.join(COLUMNS)}", *(",".join(map(str, row)) for row in triplet_table(card))]
    files = {root / ("label_mapping.txt" if layout == "cholect50" else "dict/maps.txt"): rows}
    if layout == "cholect45":
        for task in TASKS:
            files[root / "dict" / f"{task}.txt"] = [f"{i}:{name}" for i, name in enumerate(vocabulary(card)[task])]
    for path, lines in files.items():
        write_text(path, "\n".join(lines) + "\n")
