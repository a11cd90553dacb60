"""Trained models to call: a backbone with its preprocessing."""

from __future__ import annotations

from surgdino.backbone.checkpoint import load

__all__ = ["load"]
