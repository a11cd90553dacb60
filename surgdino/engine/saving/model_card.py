"""What model.json says of a checkpoint beyond its architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from surgdino.backbone.checkpoint import usual_size

if TYPE_CHECKING:
    from surgdino.engine.session import Session


def model_json(session: Session) -> dict[str, Any]:
    """The facts of the session's present step: data, method, steps, and what the probe measured."""
    plan = session.plan
    probe = session.probes.summary(session.step)
    retention = {key: getattr(plan.train, key) for key in ("frozen_blocks", "pull", "low_rank")}
    alpha = plan.train.ship_alpha
    return {
        **plan.model_json,
        "method": dict(plan.method),
        "steps": session.step,
        "steps_planned": session.steps,
        "seed": plan.train.seed,
        "batch_size": plan.train.batch_size,
        "weights_of": plan.train.ship,
        **({"ship_alpha": alpha} if alpha != 1 else {}),
        "image_size": usual_size(plan.backbone, plan.crops.global_size),
        **({"retention": retention} if any(retention.values()) else {}),
        **({"probe": probe} if probe else {}),
    }
