"""What all protocols share: means that leave undefined values out, and results as plain JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def nanmean(values: np.ndarray, axis: int | None = None) -> Any:
    """The mean of the defined values; NaN, and no warning, where there is none."""
    values = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count


def nanstd(values: np.ndarray) -> float:
    """The sample standard deviation (n - 1) of the defined values of a 1-D array; NaN below two of them."""
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    return float(defined.std(ddof=1)) if defined.size > 1 else math.nan


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise division after IEEE 754, without a warning: 0/0 is NaN and x/0 infinite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)


def as_json(result: Any) -> Any:
    """A result as dicts, lists, numbers and strings that `json.dump(..., allow_nan=False)` accepts.

    NaN, which JSON lacks, becomes None: a reader must see that the number does not exist, not that it is 0.
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: as_json(getattr(result, field.name)) for field in dataclasses.fields(result)}
    if isinstance(result, Mapping):
        return {str(key): as_json(value) for key, value in result.items()}
    if isinstance(result, np.ndarray):
        return as_json(result.tolist())
    if isinstance(result, (list, tuple)):
        return [as_json(value) for value in result]
    if isinstance(result, np.generic):
        return as_json(result.item())
    if isinstance(result, float) and not math.isfinite(result):
        return None
    return result
