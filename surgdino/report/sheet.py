"""A dark sheet of pictures and words, placed to the pixel: what `surgdino show` draws on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from surgdino.paths import atomic_write

GROUND = "#0e141b"  # near the black around an endoscope's disc, so that the frames stand free
INK, SOFT, FAINT, ACCENT, WARM = "#eef2f6", "#9aa7b4", "#2a3642", "#4dd0c8", "#ffb454"
_DPI = 100
MARGIN = 36


class Sheet:
    """Collects pictures, words and rules, then writes them as one PNG. Coordinates are pixels from the top left."""

    def __init__(self, width: int, height: int) -> None:
        self.canvas = np.empty((height, width, 3), np.uint8)
        self.canvas[:] = rgb(GROUND)
        self._words: list[tuple[float, float, str, dict]] = []

    def picture(self, x: int, y: int, image: np.ndarray) -> None:
        """Place uint8 [h, w, 3] RGB with its corner at (x, y)."""
        self.canvas[y : y + image.shape[0], x : x + image.shape[1]] = image

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 13,
        colour: str = INK,
        bold: bool = False,
        at: str = "left",
    ) -> None:
        """Place a line of text whose baseline starts (or, by `at`, centres or ends) at (x, y); `size` in pixels."""
        style = {"fontsize": size * 72 / _DPI, "color": colour, "weight": "bold" if bold else "normal", "ha": at}
        self._words.append((x, y, text, style))

    def rule(self, x0: int, x1: int, y: int, colour: str = FAINT) -> None:
        """A hairline."""
        self.canvas[y : y + 1, x0:x1] = rgb(colour)

    def heading(self, title: str, subtitle: str) -> None:
        """Title and subtitle at the top left."""
        self.words(MARGIN, 58, title, size=30, bold=True)
        self.words(MARGIN, 88, subtitle, size=15, colour=SOFT)

    def save(self, target: Path) -> Path:
        """Write the PNG whole or not at all.

        Raises:
            SurgdinoError: the file system refused.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        height, width = self.canvas.shape[:2]
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=GROUND)
        figure.figimage(self.canvas)
        for x, y, text, style in self._words:
            figure.text(x / width, 1 - y / height, text, va="baseline", parse_math=False, **style)
        with atomic_write(target) as temporary:
            FigureCanvasAgg(figure).print_png(str(temporary))
        return target


def rgb(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three numbers."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]


def fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image as large as fits in width x height, aspect kept."""
    factor = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
