"""Pictures of everyday sets in the exact layouts of their releases: each class has a colour, sizes differ."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np

SYNSETS = ("n01440764", "n02123045", "n07747607")
DISHES = ("apple_pie", "ramen", "waffles")


def write_picture(path: Path, kind: int, number: int) -> None:
    """A picture of a class: its colour, with noise of its own and a size of its own."""
    rng = np.random.default_rng([kind, number])
    height, width = rng.integers(40, 90, 2)
    colour = np.array([(210, 60, 40), (40, 190, 70), (50, 80, 220)][kind % 3])
    picture = np.clip(colour + rng.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])


def write_image_folder(
    root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("bowel", "liver", "spleen")
) -> Path:
    """`PART/CLASS/PICTURE`, or `CLASS/PICTURE` for a part called "."."""
    for place, (part, count) in enumerate(parts.items()):
        for kind, name in enumerate(classes):
            for number in range(count):
                suffix = ".png" if number % 2 else ".jpg"
                write_picture(root / part / name / f"a picture {number}{suffix}", kind, 1000 * place + number)
    return root


def write_imagenet(root: Path, val: str = "sorted", train: int = 6, count: int = 4) -> Path:
    """`train/n01440764/n01440764_10.JPEG`, and val sorted into folders, or flat with Kaggle's table or the devkit."""
    for kind, synset in enumerate(SYNSETS):
        for number in range(train):
            write_jpeg(root / "train" / synset / f"{synset}_{10 * number}.JPEG", kind, number)
    kinds = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SYNSETS)), count))
    for row, kind in enumerate(kinds.tolist(), start=1):
        folder = root / "val" / SYNSETS[kind] if val == "sorted" else root / "val"
        write_jpeg(folder / f"ILSVRC2012_val_{row:08d}.JPEG", kind, 500 + row)
    if val == "kaggle":
        rows = [f"ILSVRC2012_val_{row:08d},{SYNSETS[kind]} 85 1 499 272 " for row, kind in enumerate(kinds, start=1)]
        (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows[::-1]]) + "\n")
    if val == "devkit":
        write_devkit(root / "ILSVRC2012_devkit_t12" / "data", kinds)
    return root


def write_devkit(folder: Path, kinds: np.ndarray) -> None:
    """Ids that are not in the order of the synsets' names, and a synset with others below it, as in the release."""
    from scipy.io import savemat

    folder.mkdir(parents=True)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(3 - kind, synset, "words", "gloss", 0) for kind, synset in reversed([*enumerate(SYNSETS)])]
    rows.append((4, "n00001740", "entity", "gloss", 3))
    savemat(folder / "meta.mat", {"synsets": np.array(rows, fields)[:, None]})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{3 - kind}\n" for kind in kinds))


def write_jpeg(path: Path, kind: int, number: int) -> None:
    """Under a suffix that OpenCV does not know."""
    write_picture(path.with_suffix(".jpg"), kind, number)
    path.with_suffix(".jpg").rename(path)


def write_food101(root: Path, suffix: str = ".txt", train: int = 5, test: int = 3) -> Path:
    """`images/CLASS/ID.jpg` with `meta/train.txt` and `meta/test.txt`, or .json."""
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for kind, dish in enumerate(DISHES):
        for number in range(train + test):
            name = f"{dish}/{1005649 + 37 * number}"
            write_picture(root / "images" / f"{name}.jpg", kind, number)
            lists["train" if number < train else "test"].setdefault(dish, []).append(name)
    (root / "meta").mkdir()
    for part, of_part in lists.items():
        rows = "".join(f"{name}\n" for names in of_part.values() for name in names)
        text = rows if suffix == ".txt" else json.dumps(of_part)
        (root / "meta" / f"{part}{suffix}").write_text(text)
    return root


def write_oxford(root: Path, kind: str = "pkl") -> Path:
    """Eight pictures and three queries in revisited Oxford's layout; a query is the left half of its picture."""
    names, queries = [f"building_{number:06d}" for number in range(8)], [f"query_{number}" for number in range(3)]
    for number, name in enumerate([*names, *queries]):
        write_picture(root / "jpg" / f"{name}.jpg", number % 3, number)
    gnd = [
        {"bbx": [0.0, 0.0, 20.4, 40.0], "easy": [0, 3], "hard": [6], "junk": [1]},
        {"bbx": [0.0, 0.0, 20.0, 40.0], "easy": [], "hard": [1, 4], "junk": []},
        {"bbx": [5.0, 2.0, 25.0, 38.0], "easy": [2, 5], "hard": [], "junk": [7, 0]},
    ]
    write_truth(root, {"imlist": names, "qimlist": queries, "gnd": gnd}, kind)
    return root


def write_truth(root: Path, truth: object, kind: str) -> None:
    """`gnd_roxford5k.pkl` as Python 2 or 3 writes it (protocol 2), or .json."""
    if kind == "json":
        (root / "gnd_roxford5k.json").write_text(json.dumps(truth))
    else:
        (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, protocol=2))
