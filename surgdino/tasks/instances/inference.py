"""From frames to detections in the pictures' own pixels, as rows of COCO's results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.crops.workers import load
from surgdino.datasets.files import is_image
from surgdino.datasets.objects import Objects, box_of
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import ReadFrames
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.instances.coco import PIXEL, SCORE, Row, Truth, as_runs
from surgdino.tasks.instances.heads import Answer, InstanceHead, Output
from surgdino.tasks.instances.losses import corners
from surgdino.tasks.instances.targets import objects_at
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.segmentation.targets import Placement, placements
from surgdino.transfers import fetched, host_copy, uploaded


class DetectionNetwork(nn.Module):
    """A backbone and a head; the backbone learns where its parameters require a gradient."""

    def __init__(self, backbone: Backbone, head: InstanceHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Output:
        """What the head says of normalised images [B, 3, H, W]."""
        return self.head.of_images(self.backbone, images)


@dataclass(frozen=True)
class Detector:
    """A trained head with the backbone that it was trained for.

    Attributes:
        keep: the lowest score that is kept.
        most: detections of a picture.
    """

    context: TaskContext
    head: InstanceHead
    keep: float
    most: int

    def detections(
        self, frames: LabelledFrames, tokens: FeatureRows | None = None, *, masks: bool = True
    ) -> Iterator[tuple[int, list[Row]]]:
        """(place among the frames, rows) of each frame: `category_id` from 1, `score`, `bbox`, `area`, and
        `segmentation` where the head has learnt masks.

        Args:
            tokens: of the last block's patches, which saves the backbone; None runs it.
            masks: whether to make them.
        """
        placed, video_of = placements(frames), frames.video_of
        drawn = masks or not self.head.crops
        for i, answer in enumerate(self.answers(frames, tokens, least=self.keep, masks=drawn)):
            yield i, self._rows(answer, placed[video_of[i]], masks)

    def _rows(self, answer: Answer, placement: Placement, masks: bool) -> list[Row]:
        x0, y0, x1, y1 = placement.box
        scale, shift = np.array([x1 - x0, y1 - y0] * 2), np.array([x0, y0] * 2)
        boxes = corners(answer.boxes).clamp(0, 1).numpy().astype(np.float64) * scale + shift
        rows = []
        for k, (box, kind, score) in enumerate(zip(boxes, answer.kinds.tolist(), answer.scores.tolist(), strict=True)):
            mask, around = None, (*box[:2], *(box[2:] - box[:2]))
            if answer.masks is not None:
                mask = self._mask(answer.masks[k].numpy(), placement, box)
                around = box_of(mask) if not self.head.crops and mask.any() else around
            sides = [round(float(side), PIXEL) for side in around]
            if min(sides[2:]) <= 0:
                continue
            row: Row = {"category_id": kind + 1, "score": round(score, SCORE), "bbox": sides}
            row["area"] = sides[2] * sides[3]
            if mask is not None and masks:
                row |= {"segmentation": as_runs(mask), "area": float(mask.sum())}
            rows.append(row)
        return rows

    def _mask(self, logits: np.ndarray, placement: Placement, box: np.ndarray) -> np.ndarray:
        """bool [H, W] of the picture's own size."""
        x0, y0, x1, y1 = placement.box
        mask = np.zeros(placement.source[::-1], bool)
        mask[y0:y1, x0:x1] = cv2.resize(logits, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) > 0
        if self.head.crops:
            left, top = np.floor(box[:2]).astype(int)
            right, bottom = np.ceil(box[2:]).astype(int)
            inside = np.zeros_like(mask)
            inside[top:bottom, left:right] = True
            mask &= inside
        return mask

    @torch.no_grad()
    def answers(
        self, frames: LabelledFrames, tokens: FeatureRows | None = None, *, least: float = 0.0, masks: bool = True
    ) -> Iterator[Answer]:
        """What the head finds in each frame with a score of `least` or more, in shares of the input, on the host."""
        drawn = deque[Tensor | None]()  # the masks of a batch stay on the device until it is known which are wanted

        def without_masks() -> Iterator[dict[str, Tensor]]:
            for output in self._outputs(frames, tokens):
                found = self.head.found(output, self.most, bool(self.head.known("masked")))
                drawn.append(found.masks if masks else None)
                yield {"boxes": found.boxes, "kinds": found.kinds, "scores": found.scores}

        for found in fetched(without_masks()):
            kept, maps = found["scores"].double() >= least, drawn.popleft()
            counts = kept.sum(1).tolist()
            boxes, kinds, scores = (found[name][kept].split(counts) for name in ("boxes", "kinds", "scores"))
            of_masks: Sequence[Tensor | None] = [None] * len(counts)
            if maps is not None:
                picture, place = uploaded(kept.nonzero(), maps.device).unbind(1)
                of_masks = host_copy(maps[picture, place], copy=False)().split(counts)
            for each in zip(boxes, kinds, scores, of_masks, strict=True):
                answer = Answer(*each)
                yield answer.mirrored() if self.context.view.mirrored else answer

    def _outputs(self, frames: LabelledFrames, tokens: FeatureRows | None) -> Iterator[Output]:
        """What the head says, batch by batch."""
        context, size = self.context, self.context.batch_images
        network = DetectionNetwork(context.backbone, self.head).eval()
        jobs = [np.arange(start, min(start + size, len(frames))) for start in range(0, len(frames), size)]
        places = [frames.index[rows] for rows in jobs] if tokens is None else []
        reader = ReadFrames(frames.store, context.preprocess)
        read = load(reader, places, context.workers, context.on_gpu, result_bytes=reader.bytes_of(size))
        for rows in jobs:
            with context.autocast():
                if tokens is None:
                    yield network(context.normalize(next(read).to(context.device, non_blocking=True)))
                else:
                    of_patches = uploaded(tokens[rows], context.device).float()
                    yield self.head(of_patches, (context.grid, context.grid))


def truth_of(frames: LabelledFrames, classes: tuple[str, ...]) -> Truth:
    """What labelled frames show, in COCO's form; an image is called by its video and number."""
    placed, video_of = placements(frames), frames.video_of
    called = picture_names(frames)
    images, annotations = list[Row](), list[Row]()
    for i in range(len(frames)):
        video, number, placement = frames.videos[video_of[i]], int(frames.numbers[i]), placed[video_of[i]]
        width, height = placement.source
        images.append({"id": i + 1, "file_name": called(video, number), "width": width, "height": height})
        annotations += _annotations(objects_at(frames, i, placement, classes), i + 1, len(annotations))
    return Truth(images, classes, annotations)


def picture_names(frames: LabelledFrames) -> Callable[[str, int], str]:
    """What an image of a video is called by its number; a video that is one picture needs none."""
    shards = {video.id: video.shard for video in frames.store.videos}
    alone = {video for video, shard in shards.items() if is_image(Path(shard.header["source"]["path"]))}
    return lambda video, number: video if video in alone else f"{video}/{number:06d}"


def _annotations(objects: Objects, image: int, before: int) -> Iterator[Row]:
    rows = zip(objects.boxes.tolist(), objects.classes.tolist(), objects.masks, objects.crowd.tolist(), strict=True)
    for number, (box, kind, mask, crowd) in enumerate(rows, start=before + 1):
        sides = [round(side, PIXEL) for side in box]
        row: Row = {"id": number, "image_id": image, "category_id": kind + 1, "bbox": sides, "iscrowd": int(crowd)}
        row["area"] = sides[2] * sides[3] if mask is None else float(mask.sum())
        yield row if mask is None else {**row, "segmentation": as_runs(mask)}
