"""What a model is, in words: a configs/model/NAME.yaml or the model.json of a checkpoint, each value within its range.

timm's own functions take far more than an architecture: files to read, addresses to fetch, classes to call. What comes
with a shared checkpoint reaches them through `VitOptions` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from surgdino.config import Location, Positive, Share, typed

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PatchSize = Annotated[int, Field(ge=1, le=256)]
ImageSize = Annotated[int, Field(ge=8, le=4096)]
Channel = Share  # a mean, of pictures in the 0..1 range
Spread = Annotated[float, Field(ge=1e-3, le=10)]  # a standard deviation; 1 / 255 is the smallest that is in use
Registers = Annotated[int, Field(ge=0, le=256)]
Ratio = Annotated[float, Field(gt=0, le=32)]
Option = bool | None


@dataclass(frozen=True)
class VitOptions:
    """`timm_kwargs`: the arguments of timm's vision transformers that shape them; None is the architecture's own.

    The first block is of all of them, the second of `VisionTransformer`, the third of `Eva` (rotary positions).
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # also where the keys around them are not all known

    img_size: ImageSize | tuple[ImageSize, ImageSize] | None = None
    patch_size: PatchSize | None = None
    embed_dim: Annotated[int, Field(ge=1, le=8192)] | None = None
    depth: Annotated[int, Field(ge=1, le=64)] | None = None
    num_heads: Annotated[int, Field(ge=1, le=256)] | None = None
    mlp_ratio: Ratio | None = None
    init_values: Annotated[float, Field(ge=0, le=100)] | None = None
    qkv_bias: Option = None
    qk_norm: Option = None
    class_token: Option = None
    no_embed_class: Option = None
    dynamic_img_size: Literal[True] | None = None
    global_pool: Literal["", "token", "avg", "avgmax", "max", "map"] | None = None
    drop_rate: Share | None = None
    pos_drop_rate: Share | None = None
    proj_drop_rate: Share | None = None
    attn_drop_rate: Share | None = None

    reg_tokens: Registers | None = None
    proj_bias: Option = None
    scale_attn_norm: Option = None
    scale_mlp_norm: Option = None
    pos_embed: Literal["", "none", "learn"] | None = None
    pre_norm: Option = None
    final_norm: Option = None
    fc_norm: Option = None
    norm_layer: Literal["layernorm", "layernormfp32", "rmsnorm"] | None = None
    act_layer: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"] | None = None

    num_reg_tokens: Registers | None = None
    qkv_fused: Option = None
    swiglu_mlp: Option = None
    scale_mlp: Option = None
    scale_attn_inner: Option = None
    use_abs_pos_emb: Option = None
    use_rot_pos_emb: Option = None
    use_post_norm: Option = None
    use_pre_transformer_norm: Option = None
    use_post_transformer_norm: Option = None
    use_fc_norm: Option = None
    attn_type: Literal["eva", "rope"] | None = None
    swiglu_align_to: Annotated[int, Field(ge=0, le=1024)] | None = None
    rope_type: Literal["cat", "mixed", "dinov3"] | None = None
    rope_temperature: Positive | None = None
    rope_grid_offset: Annotated[float, Field(ge=-1, le=1)] | None = None
    rope_grid_indexing: Literal["ij", "xy"] | None = None
    rope_rotate_half: Option = None
    ref_feat_shape: ImageSize | tuple[ImageSize, ImageSize] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Those that are given, as JSON and timm take them."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in given.items() if v is not None}


@dataclass(frozen=True)
class ModelSettings:
    """A configs/model/NAME.yaml, with `model.weights` of the command."""

    name: str
    timm: str
    timm_kwargs: VitOptions
    patch_size: PatchSize | None
    mean: tuple[Channel, Channel, Channel]
    std: tuple[Spread, Spread, Spread]
    weights: Location | None
    drop_path: Share

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> ModelSettings:
        """From a `model` section; what it leaves out is the architecture's own, or usual.

        Raises:
            SurgdinoError: names the key, what it takes and what it holds.
        """
        usual: dict[str, Any] = {"timm_kwargs": {}, "patch_size": None, "weights": None, "drop_path": 0.0}
        normalisation = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        return typed(cls, {"name": model.get("timm"), **normalisation, **usual, **model}, "model")

    def as_dict(self) -> dict[str, Any]:
        """As in the YAML file."""
        weights = None if self.weights is None else str(self.weights)
        lists = {"mean": list(self.mean), "std": list(self.std)}
        return {**asdict(self), **lists, "timm_kwargs": self.timm_kwargs.as_dict(), "weights": weights}
