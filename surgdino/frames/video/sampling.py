"""Which frames of a video to take: the nearest to an even grid in time, so that no drift builds up."""

from __future__ import annotations

import numpy as np

# Of two frames equally far from a grid point, up to the rounding of time stamps, the earlier one, on every machine.
_TIE = 1e-6


def sample_numbers(times: np.ndarray, fps: float | None) -> np.ndarray:
    """Frame numbers nearest to 0, 1/fps, 2/fps, ... seconds.

    The grid is absolute: 25 fps sampled at 1 fps gives 0, 25, 50, ... to the end, and 29.97 fps stays within half a
    frame of every full second. A frame nearest to several grid points (a gap in a variable-rate video, or `fps` above
    the video's own) is taken once. A video shorter than the step gives its first frame.

    Args:
        times: float64 [n], ascending seconds from the first frame.
        fps: samples per second; None takes every frame.

    Returns:
        int64 [m], ascending positions in `times`.

    Raises:
        ValueError: `fps` is not positive.
    """
    times = np.asarray(times, dtype=np.float64)
    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be positive, found {fps}")
    if fps is None or len(times) < 2:
        return np.arange(len(times), dtype=np.int64)
    grid = np.arange(int((times[-1] + _TIE) * fps) + 1) / fps
    after = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    before = after - 1
    nearest = np.where(times[after] - grid < grid - times[before] - _TIE, after, before)
    return np.unique(nearest).astype(np.int64)
