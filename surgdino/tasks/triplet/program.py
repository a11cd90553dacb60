"""Triplets as a program of fixed steps, from pictures to scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.exports.graph import Unpacked
from surgdino.metrics.triplet import TripletMap
from surgdino.tasks.triplet.components import PARTS, part_of
from surgdino.tasks.triplet.head import TripletHead
from surgdino.tasks.triplet.settings import TripletSettings


class TripletProgram(nn.Module):
    """Pictures [B, 3, S, S] to the scores IVT, I, V, T, [B, classes] each; see `combined_scores`."""

    def __init__(self, backbone: Backbone, head: TripletHead, mapping: TripletMap, settings: TripletSettings) -> None:
        super().__init__()
        self.backbone, self.head = Unpacked(backbone), head
        self.weight, self.seen = settings.component_weight, settings.frames
        for part in PARTS:
            self.register_buffer(f"of_{part}", torch.from_numpy(part_of(part, mapping)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class; earlier frames are those before it in the batch."""
        cls, patches = self.backbone(images)
        if self.seen > 1:
            back = torch.arange(self.seen - 1, -1, -1, device=cls.device)
            cls = cls[(torch.arange(cls.shape[0], device=cls.device)[:, None] - back).clamp(min=0)]
        logits = self.head(cls, patches) if self.head.reads_patches else self.head(cls)
        found = {name: values.float().sigmoid() for name, values in logits.items()}
        logs = {name: values.double().clamp(min=1e-30).log() for name, values in found.items()}
        total = logs["IVT"]
        for part in PARTS:
            total = total + self.weight * logs[part][:, self.get_buffer(f"of_{part}")]
        combined = (total / (1 + len(PARTS) * self.weight)).exp().float()
        return combined, *(found[part] for part in PARTS)
