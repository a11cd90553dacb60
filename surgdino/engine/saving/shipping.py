"""What users take away of a run: one network's backbone in one piece, averaged with the initial one where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.engine.averaging import between
from surgdino.engine.parallel.networks import whole_backbone

if TYPE_CHECKING:
    from surgdino.engine.session import Session


def initial_weights(backbone: Backbone, ship_alpha: float) -> dict[str, Tensor]:
    """A copy of the weights that a run begins with, before anything is added to them; empty where none are shipped."""
    if ship_alpha == 1.0:
        return {}
    return {name: tensor.detach().cpu().clone() for name, tensor in backbone.vit.state_dict().items()}


def shipped(session: Session, network: Literal["student", "teacher"]) -> Backbone:
    """The backbone as a checkpoint holds it: (1 - alpha) initial + alpha adapted, alpha being `train.ship_alpha`.

    WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903). For all processes to call; the run itself goes on untouched.
    """
    backbone = whole_backbone(getattr(session, network))
    if not session.initial:
        return backbone
    adapted = {name: tensor.cpu() for name, tensor in backbone.vit.state_dict().items()}
    copy = build_backbone(backbone.settings, drop_path=0.0)
    copy.vit.load_state_dict(between(session.initial, adapted, session.plan.train.ship_alpha))
    return copy.to(backbone.mask_token.device)
