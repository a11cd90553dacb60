"""What teacher and student read of a batch: the class token of every crop, and the patch tokens that are predicted.

The backbone is told which patches will be read, so that its last block computes no others. Symbols: b images, 2 global
and L local views, D the embedding width, M masked patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from surgdino.backbone.vit import Features
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.teacher import Network


def teacher_tokens(teacher: Network, views: Views) -> Features:
    """Of the whole global views: `cls` [2b, D], and `patches` [M, D] where the student's views are masked."""
    [features] = teacher.backbone.forward_crops([(views.global_crops, None)], wanted=[views.masked])
    return features


def student_tokens(student: Network, views: Views) -> Features:
    """`cls` [(2 + L) b, D] of the masked global and the local views, view-major; `patches` [M, D] that are masked."""
    crops: list[tuple[Tensor, Tensor | None]] = [(views.global_crops, views.masks)]
    wanted: list[Tensor | None] = [views.masked]
    if len(views.local_crops):
        crops.append((views.local_crops, None))
        wanted.append(None)
    features = student.backbone.forward_crops(crops, wanted=wanted)
    return Features(torch.cat([each.cls for each in features]), features[0].patches)


def global_class_tokens(student: Network, views: Views) -> Tensor:
    """`cls` [2b, D] of the masked global views alone, with the paths dropped that `student_tokens` would drop."""
    [features] = student.backbone.forward_crops([(views.global_crops, views.masks)], wanted=[views.masked])
    return features.cls
