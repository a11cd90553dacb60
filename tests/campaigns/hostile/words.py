"""Words of a command that cannot be meant: one line that names the key, before the work begins."""

from __future__ import annotations

from collections.abc import Iterator

from tests.campaigns.hostile.case import Case, refused
from tests.campaigns.hostile.making import PRETRAIN

NUMBERS = {
    "train.lr": ("nan", "-1", "inf", "x", "1e300"),
    "train.steps": ("-1", "0", "nan", "1e30", "1" + "0" * 30, "2.5"),
    "train.batch_size": ("-4", "0", "nan", "10000000000"),
    "train.weight_decay": ("nan", "-1", "inf"),
    "train.checkpoint_every": ("-1", "x", "1e30"),
    "train.warmup_steps": ("-1", "nan"),
    "train.seed": ("-1", "x", "1e30"),
    "data.fps": ("inf", "nan", "-1", "0", "1e9"),
    "data.workers": ("-3", "1e9", "x"),
    "crops.global_size": ("800000", "-32", "0", "31"),
    "crops.local_count": ("-1", "100000", "x"),
    "method.eps": ("0", "-1", "nan"),
    "method.momentum": ("2", "-1", "nan"),
    "hardware.loader_workers": ("-3", "100000"),
    "hardware.threads": ("-1", "0", "1e9"),
    "hardware.precision": ("fp7",),
}
WORDS = (
    "nonsense",
    "train.=1",
    "=1",
    "train.stepss=3",
    "recipe=none",
    "dataset=none",
    "train=5",
    "train.lr=",
    "'[",
    "x={",
    "${oc.env:HOME}",
)


def cases() -> Iterator[Case]:
    for key, values in NUMBERS.items():
        for value in values:
            yield Case("settings", f"{key}={value[:12]}", _nothing, _with(key, value), refused(key), base="pretrained")
    for word in WORDS:
        yield Case("settings", word, _nothing, (*PRETRAIN, "run.dir=r2", word), refused(), base="pretrained")


def _nothing(folder: object) -> None:
    """Nothing is damaged: only the command is odd."""


def _with(key: str, value: str) -> tuple[str, ...]:
    others = [word for word in PRETRAIN if not word.startswith(f"{key}=") and not word.startswith("run.dir")]
    return (*others, "run.dir=r2", "data.store=s2", f"{key}={value}")
