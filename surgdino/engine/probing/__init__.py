"""Measuring a backbone on a fixed set of frames: `ProbeSet(...).measure(backbone, autocast) -> ProbeReport`.

What is measured is one file each in `surgdino/engine/probes/`.
"""

from surgdino.engine.probing.probe_set import ProbeSet
from surgdino.engine.probing.report import Change, ProbeReport, changes

__all__ = ["Change", "ProbeReport", "ProbeSet", "changes"]
