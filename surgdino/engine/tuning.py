"""What learns of a backbone, in pretraining and in fine-tuning: all of it, a part of it, adapters beside it."""

from __future__ import annotations

import re

from surgdino.backbone.low_rank import add_low_rank, is_low_rank
from surgdino.backbone.vit import Backbone
from surgdino.engine.settings import Learning, Token
from surgdino.errors import SurgdinoError

_PARAMETERS: dict[str, Token] = {"cls_token": "class", "mask_token": "mask", "pos_embed": "position"}
_PARAMETERS["reg_token"] = "register"


def prepare(backbone: Backbone, learning: Learning) -> None:
    """Add adapters and freeze what never learns; before the network is copied and sharded.

    Raises:
        SurgdinoError: there are fewer blocks, adapters are wanted without a rank or the other way round, or the blocks
            take none.
    """
    tune, rank, depth = learning.tune, learning.low_rank, backbone.depth
    last = last_blocks(tune)
    for place, blocks, found in (
        ("train.frozen_blocks", learning.frozen_blocks, learning.frozen_blocks),
        ("train.tune", last or 0, tune),
    ):
        if blocks > depth:
            expected = f"at most the {depth} blocks of the model"
            raise SurgdinoError("unusable setting", place=place, expected=expected, found=found)
    if tune.endswith("lora") != bool(rank) and tune != "all":
        fix = "use train.low_rank=8, for example" if tune.endswith("lora") else "use train.tune=last2+lora"
        raise SurgdinoError(f"train.tune={tune} does not go with train.low_rank={rank}", fix=fix)
    if rank:
        add_low_rank(backbone, rank, learning.frozen_blocks, depth - (last or 0))
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(is_trainable(backbone, name, learning))


def is_trainable(backbone: Backbone, name: str, learning: Learning) -> bool:
    """Whether a parameter of the backbone ever learns.

    Frozen blocks take the embeddings below them along. Beside adapters the norms learn, which are few and carry the
    statistics of the new images, and the mask token, which no natural-image checkpoint brings trained. `tune` chooses
    less: the attention's output projections (APLA, arXiv 2503.18873), or the last blocks and all norms, with adapters
    in the other blocks or without (ExPLoRA, Khanna et al. 2024, arXiv 2406.10973).
    """
    token = _PARAMETERS.get(name.removeprefix("vit."))
    if token in learning.freeze_tokens:
        return False
    if token == "mask":
        return True
    if learning.frozen_blocks and backbone.layer_id(name) <= learning.frozen_blocks:
        return False
    if learning.tune == "attn_proj":
        return ".attn.proj." in name
    if (last := last_blocks(learning.tune)) is not None:
        return backbone.layer_id(name) > backbone.depth - last or is_low_rank(name) or "norm" in name
    return not learning.low_rank or is_low_rank(name) or "norm" in name


def last_blocks(tune: str) -> int | None:
    """How many of the last blocks learn as a whole: 2 of `last2+lora`; None where it is not for that to say."""
    found = re.match(r"last(\d+)", tune)
    return int(found[1]) if found else None
