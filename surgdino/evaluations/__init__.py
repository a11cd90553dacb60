"""Evaluations of frozen features, one file each, discovered by file name; `parts/evaluation.py` has their interface.

A suite (configs/suites/NAME.yaml) names evaluations with their settings; `surgdino benchmark` runs them.
"""

from __future__ import annotations

PACKAGE = __name__
