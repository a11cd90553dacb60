"""The golden losses: to the last bit on the kind of machine that they were made on, to 1e-4 on any other."""

from __future__ import annotations

import json

import pytest

from tests.engine.golden_losses import FOLDER, losses_of, machine_kind, moved

RENEW = "if the losses are meant to change: python -m tests.engine.golden_losses renew"


@pytest.mark.quick("simdinov2")
@pytest.mark.parametrize("method", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_fifty_steps_give_the_golden_losses(method):
    golden = json.loads((FOLDER / f"{method}.json").read_text())
    found = losses_of(method)
    assert len(found) == len(golden["steps"]) == 50
    largest = moved(golden["steps"], found)
    if machine_kind() == golden["machine"]:
        assert found == golden["steps"], f"moved by {largest:.3g}; {RENEW} {method}"
    assert largest < 1e-4, f"{RENEW} {method}"
