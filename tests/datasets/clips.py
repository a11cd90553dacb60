"""Clips of surgical actions with their table: each class has a colour and a direction of motion."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

LABELS = ("cut", "grasp", "suture")


def write_clip(path: Path, kind: int, number: int, frames: int = 6) -> None:
    """A square that moves over a noisy ground, 64 x 48 pixels at 4 frames a second."""
    rng = np.random.default_rng([kind, number])
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for place in range(frames):
            picture = rng.integers(60, 120, (48, 64, 3)).astype(np.uint8)
            x = 6 * place if kind != 1 else 6 * (frames - 1 - place)
            picture[12:28, x : x + 16] = np.eye(3)[kind] * 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_clips(root: Path, operations: int = 2, each: int = 2, columns: str = "file,label,operation") -> Path:
    """`each` clips of every class in every operation, in folders of the operations, and `labels.csv`."""
    rows = [columns]
    for operation in range(operations):
        for kind, label in enumerate(LABELS):
            for number in range(each):
                name = f"OP{operation}/{label}_{number}.mp4"
                write_clip(root / name, kind, 10 * operation + number)
                told = {"file": name, "label": label, "operation": f"OP{operation}"}
                told["split"] = "train" if operation else "test"
                rows.append(",".join(told[column] for column in columns.split(",")))
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root
