"""How detections are scored: COCO's average precision of boxes, and of masks where both sides have them.

From files: a truth in COCO's form against results in COCO's form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.metrics.detection import (
    AREAS,
    Kind,
    Matches,
    class_numbers,
    coco_numbers,
    frame_f1,
    match,
    taken_for,
)
from surgdino.metrics.scores import (
    ClassTable,
    Confusion,
    FrameScores,
    Score,
    ScoreRequest,
    TaskScores,
    chosen,
    find_row,
    score_rows,
)
from surgdino.tasks.instances.coco import Row, Truth, read_found, read_truth
from surgdino.tasks.scoring.folders import Folders
from surgdino.tasks.scoring.scoring import Scoring

BOX, MASK, PRIOR = "instances/coco-box", "instances/coco-mask", "instances/mean-box"
HEADLINE = ("AP", BOX)
SHOWN = 0.3
_COUNTER = re.compile(r"[ _.-]*(?:frame)?[ _.-]*\d+(?:[_-][a-z]+)?$", re.IGNORECASE)


class InstancesScoring(Scoring):
    """COCO's average precision."""

    PROTOCOLS = (BOX, MASK, PRIOR)

    def panel(self, request: ScoreRequest) -> TaskScores:
        """Refuses: objects are no arrays by video; `scored` takes them in COCO's form."""
        chosen(request.protocol, self.PROTOCOLS, self.PROTOCOLS)
        raise SurgdinoError("objects are scored in COCO's form", fix="use surgdino score or evaluate")

    def read_and_score(self, folders: Folders) -> TaskScores:
        """The operation of an image is the folder in its name, or its name without the counter at its end.

        Raises:
            SurgdinoError: a setting that COCO's form leaves no room for: it names its classes and images itself, and an
                image without a result is one in which nothing was found.
        """
        given = {"classes": folders.classes is not None, "every": folders.every != 1}
        given |= {"missing": folders.missing != "refuse", "extra": folders.extra != "refuse"}
        for key in (key for key, said in given.items() if said):
            raise SurgdinoError(
                "COCO's files say it themselves", place=key, fix=f"leave {key} out, or change the files"
            )
        truth = read_truth(_file(folders.truth, "truth.json"))
        found = read_found(_file(folders.predictions, "results.json"), truth)
        operations = [_operation(row["file_name"], folders) for row in truth.images]
        return scored(truth, found, operations, protocol=folders.protocol)


def scored(
    truth: Truth,
    found: Sequence[Row],
    operations: Sequence[str],
    *,
    prior: np.ndarray | None = None,
    protocol: str | None = "all",
    notes: Sequence[str] = (),
    shown: float = SHOWN,
    named: Sequence[tuple[str, int]] | None = None,
) -> TaskScores:
    """Every number of what was found.

    Args:
        found: rows with `image_id`, `category_id`, `score`, `bbox`, `area`, and `segmentation` in all of them or none.
        operations: of each image.
        prior: float32 [C, 5], the mean box of each class in training in shares and the share of frames with it: what
            one finds without looking, scored beside.
        shown: the score from which a detection counts where single ones are counted.
        named: (video id, frame number) of each image, for the scores of single frames.
    """
    asked, told = chosen(protocol, InstancesScoring.PROTOCOLS, InstancesScoring.PROTOCOLS), list(notes)
    owners, table = np.array(operations), list[Score]()
    tables: list[ClassTable] = []
    frames = None
    if BOX in asked:
        matches = _add(table, tables, truth, found, owners, BOX, "bbox")
        values = enumerate(frame_f1(matches["all"], shown).tolist()) if named is not None else ()
        rows = [(*named[row], value, "", "") for row, value in values if not math.isnan(value)]  # type: ignore[index]
        frames = FrameScores(f"F1 of boxes at IoU 0.5, from a score of {shown:g} on", rows) if rows else None
    masked = [bool(row.get("segmentation")) for row in found]
    drawn = any(row.get("segmentation") for row in truth.annotations)
    if MASK in asked and any(masked) and drawn:
        if not all(masked):
            what, fix = "some results have a mask and some have none", "give all of them one, or score the boxes alone"
            raise SurgdinoError(
                what, expected="segmentation in every row", found=f"row {masked.index(False) + 1}", fix=fix
            )
        bare = {row["image_id"] for row in truth.annotations if not row.get("segmentation")}
        kept = [row["id"] for row in truth.images if row["id"] not in bare]
        if bare:
            told.append(f"{MASK}: {len(bare)} images have objects without a mask and do not count")
        _add(table, tables, *_of_images(truth, found, kept), owners[np.array(kept) - 1], MASK, "segm")
    elif protocol not in (None, "all") and MASK in asked:
        side = "truth" if not drawn else "results"
        raise SurgdinoError(
            f"the {side} have no mask", expected="segmentation", fix="score the boxes: protocol=coco-box"
        )
    if PRIOR in asked and prior is not None:
        _add(table, [], truth, _without_looking(truth, prior), owners, PRIOR, "bbox", areas=("all",))
    counts = taken_for(truth.annotations, found, len(truth.classes), shown)
    title = f"class, boxes at IoU 0.5 from a score of {shown:g} on"
    confusion = Confusion(title, [*truth.classes, "nothing"], [*truth.classes, "not found"], counts, "objects")
    headline = find_row(table, *HEADLINE)
    return TaskScores("instances", table, tables, len(set(operations)), told, headline, [confusion], frames)


def _add(
    table: list[Score],
    tables: list[ClassTable],
    truth: Truth,
    found: Sequence[Row],
    owners: np.ndarray,
    protocol: str,
    kind: Kind,
    areas: Sequence[str] = AREAS,
) -> Mapping[str, list[Matches]]:
    """Add the rows of a protocol and its table of classes; the matches."""
    if kind == "bbox":  # a detection's size is that of what is scored
        found = [{**row, "area": row["bbox"][2] * row["bbox"][3]} for row in found]
    matches = match(truth.images, truth.annotations, found, len(truth.classes), kind, areas)
    table += score_rows(lambda rows: coco_numbers(matches, rows), owners.tolist(), protocol)
    numbers: list[Mapping[str, float]] = [*class_numbers(matches["all"])]
    tables.append(ClassTable("class", protocol, dict(zip(truth.classes, numbers, strict=True))))
    return matches


def _of_images(truth: Truth, found: Sequence[Row], kept: Sequence[int]) -> tuple[Truth, list[Row]]:
    """Some of the images, numbered anew."""
    number = {old: new for new, old in enumerate(kept, start=1)}
    images = [{**truth.images[old - 1], "id": new} for old, new in number.items()]
    sides = [
        [{**row, "image_id": number[row["image_id"]]} for row in rows if row["image_id"] in number]
        for rows in (truth.annotations, found)
    ]
    return Truth(images, truth.classes, sides[0]), sides[1]


def _without_looking(truth: Truth, prior: np.ndarray) -> list[Row]:
    rows = []
    for image in truth.images:
        size = np.array([image["width"], image["height"]] * 2)
        for place, (*box, share) in enumerate(prior.tolist(), start=1):
            if share:
                sides = (np.array(box) * size).tolist()
                row = {"image_id": image["id"], "category_id": place, "score": share, "bbox": sides}
                rows.append({**row, "area": sides[2] * sides[3]})
    return rows


def average_precision(truth: Truth, found: Sequence[Row]) -> dict[str, float]:
    """AP and AP50 of boxes over all images."""
    matches: dict[str, list[Matches]] = match(
        truth.images, truth.annotations, found, len(truth.classes), "bbox", ("all",)
    )
    numbers = coco_numbers(matches, np.arange(len(truth.images)))
    return {name: numbers[name] for name in ("AP", "AP50")}


def _operation(name: str, folders: Folders) -> str:
    folder, _, last = name.rpartition("/")
    stem = last.rpartition(".")[0] or last
    return folders.operation_of(folder or _COUNTER.sub("", stem) or "pictures")


def _file(path: Path, name: str) -> Path:
    """The file, or that of this name in a folder, or the only JSON file in it."""
    if not path.is_dir():
        return path
    inside = [path / name] if (path / name).is_file() else sorted(path.glob("*.json"))
    if len(inside) != 1:
        found = ", ".join(each.name for each in inside[:5]) or "none"
        raise SurgdinoError(f"no {name} in this folder", file=path, expected="one JSON file", found=found)
    return inside[0]
