"""Labels of one video, kept as arrays: 80 videos have 4.6 million labelled frames, too many for dictionaries."""

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

    def at(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels of many frames at once.

        Args:
            numbers: int64 [m] frame numbers in any order.

        Returns:
            present bool [m], and the labels [m, ...] of the frames asked for (meaningless where not present).
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        position = np.minimum(np.searchsorted(self.numbers, numbers), max(len(self) - 1, 0))
        if len(self) == 0:
            return np.zeros(len(numbers), bool), np.zeros((len(numbers), *self.array.shape[1:]), self.array.dtype)
        return self.numbers[position] == numbers, self.array[position]
