"""Labels of one video, kept as arrays: 80 videos have 4.6 million labelled frames, too many for dictionaries.

Both kinds are asked by `at(numbers, times)`, with what the frame store knows of every frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class FrameLabels(Mapping[int, Any]):
    """Frame number -> label, read like a dictionary.

    Attributes:
        numbers: int64 [n], ascending frame numbers.
        array: [n] class ids, or [n, classes] of 0/1, in the order of `numbers`.
    """

    def __init__(self, numbers: np.ndarray, array: np.ndarray) -> None:
        if len(numbers) != len(array) or (np.diff(numbers) <= 0).any():
            raise ValueError("frame numbers must ascend and have one label each")
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.array = np.asarray(array)

    def __getitem__(self, number: int) -> Any:
        position = int(np.searchsorted(self.numbers, number))
        if position == len(self.numbers) or self.numbers[position] != number:
            raise KeyError(number)
        label = self.array[position]
        return int(label) if label.ndim == 0 else tuple(int(x) for x in label)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers.tolist())

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, numbers: np.ndarray, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels of many frames at once.

        Args:
            numbers: int64 [m] frame numbers in any order.
            times: not needed; `SecondLabels.at` has the same arguments and needs these.

        Returns:
            present bool [m], and the labels [m, ...] of the frames asked for (meaningless where not present).
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        position = np.minimum(np.searchsorted(self.numbers, numbers), max(len(self) - 1, 0))
        if len(self) == 0:
            return np.zeros(len(numbers), bool), np.zeros((len(numbers), *self.array.shape[1:]), self.array.dtype)
        return self.numbers[position] == numbers, self.array[position]


class SecondLabels:
    """Labels written down by second; which frames they are of is known only beside the frames' times.

    A frame has the label of the row nearest to it in time, if that is at most half a step away. The step is the median
    distance of the rows, so a row missing from the file leaves its frames without a label.

    Attributes:
        seconds: float64 [n], ascending, from the first frame.
        array: [n] class ids in the order of `seconds`.
        reach: seconds to either side that a row speaks for.
    """

    def __init__(self, seconds: np.ndarray, array: np.ndarray) -> None:
        if len(seconds) != len(array) or (np.diff(seconds) <= 0).any():
            raise ValueError("seconds must ascend and have one label each")
        self.seconds = np.asarray(seconds, dtype=np.float64)
        self.array = np.asarray(array)
        self.reach = float(np.median(np.diff(self.seconds))) / 2 if len(seconds) > 1 else 0.5

    def __len__(self) -> int:
        return len(self.seconds)

    def at(self, numbers: np.ndarray, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels of many frames at once.

        Args:
            numbers: int64 [m] frame numbers; their labels hang on the times alone.
            times: float64 [m] seconds of those frames from the first.

        Returns:
            See `FrameLabels.at`.

        Raises:
            ValueError: no times.
        """
        if times is None:
            raise ValueError("labels by second need the frames' times")
        times = np.asarray(times, dtype=np.float64)
        if not len(self):
            return np.zeros(len(times), bool), np.zeros(len(times), self.array.dtype)
        after = np.clip(np.searchsorted(self.seconds, times), 1, max(len(self) - 1, 1))
        after = np.minimum(after, len(self) - 1)
        before = np.maximum(after - 1, 0)
        earlier = np.abs(times - self.seconds[before]) <= np.abs(times - self.seconds[after])
        nearest = np.where(earlier, before, after)
        # Times are rounded to the video's time base, often milliseconds.
        return np.abs(times - self.seconds[nearest]) <= self.reach + 1e-3, self.array[nearest]
