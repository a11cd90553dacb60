"""A small set in Cholec80's own layout, generated: for the demo and the tests, where no patient's data may be.

root/videos/video01.mp4                       H.264 High, B-frames, yuv420p
root/phase_annotations/video01-phase.txt      a row per frame
root/tool_annotations/video01-tool.txt        a row every 25 frames, one row fewer than the phases would give
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from surgdino.datasets.files import GENERATED
from surgdino.datasets.synthetic.scene import Scene
from surgdino.datasets.synthetic.tools import TOOLS, Use, draw, is_visible, plan_uses
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write, write_text

PHASES = (
    "Preparation",
    "CalotTriangleDissection",
    "ClippingCutting",
    "GallbladderDissection",
    "GallbladderPackaging",
    "CleaningCoagulation",
    "GallbladderRetraction",
)
# Rough shares of a cholecystectomy's phases, and the two usual orders of its end.
_SHARES = (0.08, 0.30, 0.12, 0.22, 0.09, 0.11, 0.08)
_ORDERS = ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 5, 4, 6))
_TOOL_STEP = 25
_CROSS_FADE = 0.3  # seconds
# High profile, B-frames and long GOPs as in Cholec80; one thread, so that every machine writes the same bytes.
_X264 = {"preset": "ultrafast", "crf": "23", "bf": "2", "g": "250", "threads": "1", "x264-params": "8x8dct=1:cabac=1"}


@dataclass(frozen=True)
class SyntheticVideo:
    """What was drawn, for tests that need to know the truth.

    Attributes:
        centre, radius: the endoscope's disc in pixels of the video.
        phases: int64 [frames], phase ids.
        tools: uint8 [frames, 7], 1 where the tool's tip is in the picture (order of `TOOLS`).
        black, outside: bool [frames], entirely black frames, and frames that show drapes.
    """

    id: str
    path: Path
    fps: int
    centre: tuple[float, float]
    radius: float
    phases: np.ndarray
    tools: np.ndarray
    black: np.ndarray
    outside: np.ndarray


def write_cholec80(
    root: str | Path,
    videos: int = 4,
    seconds: float = 24,
    fps: int = 25,
    size: tuple[int, int] = (428, 240),
    seed: int = 0,
    *,
    first: int = 1,
    annotations: bool = True,
    public_ids: bool = False,
    on_frame: Callable[[int, int], None] | None = None,
) -> list[SyntheticVideo]:
    """Write a synthetic set under `root`, which is made if need be. The same arguments give the same frames.

    A video of 8 s or more holds one second of black frames; from 12 s on it also begins with one second of drapes.

    Args:
        videos: how many operations, numbered from `first`.
        seconds: length of each; it has round(seconds * fps) frames.
        size: (width, height) in pixels, even numbers.
        annotations: write phase and tool files too.
        public_ids: leave out the mark by which the operations are called demo/1, ...: they count as Cholec80's own.
        on_frame: called with (frames done, frames in all), for a progress bar.

    Raises:
        SurgdinoError: odd size, no frames asked for, or the file system refused.
    """
    root = Path(root)
    width, height = size
    frames = round(seconds * fps)
    if width % 2 or height % 2 or min(size) < 16 or frames < 1 or videos < 1:
        raise SurgdinoError(
            "cannot generate such a set",
            expected="at least one video and frame, and an even size of 16 pixels or more",
            found=f"videos={videos}, seconds={seconds}, fps={fps}, size={width}x{height}",
        )
    if not public_ids:
        mark_generated(root)
    written = []
    for offset in range(videos):
        number = first + offset
        rng = np.random.default_rng([seed, number])
        path = root / "videos" / f"video{number:02d}.mp4"
        operation = Operation(rng, frames, fps, size)
        tick = None if on_frame is None else lambda done, base=offset * frames: on_frame(base + done, videos * frames)
        encode_video(path, operation.images(), size, fps, tick)
        if annotations:
            _write_phases(root / "phase_annotations" / f"{path.stem}-phase.txt", operation.phases)
            _write_tools(root / "tool_annotations" / f"{path.stem}-tool.txt", operation.tools)
        written.append(operation.truth(path))
    return written


def mark_generated(root: Path) -> None:
    """Say in the folder that it shows no real operation, whatever its files are called."""
    write_text(root / GENERATED, "Drawn by surgdino: its operations are demo/1, ..., and no public dataset's.\n")


class Operation:
    """One operation's script: which phase, tools, smoke and view each frame has."""

    def __init__(self, rng: np.random.Generator, frames: int, fps: int, size: tuple[int, int]) -> None:
        self.fps, self.size = fps, size
        self.scene = Scene(rng, *size)
        self.times = np.arange(frames) / fps
        self.spans = _plan_phases(rng, frames / fps)
        starts = np.array([start for _, start, _ in self.spans])
        self.span_of = np.searchsorted(starts, self.times, side="right") - 1
        self.phases = np.array([phase for phase, _, _ in self.spans])[self.span_of]
        self.uses = plan_uses(rng, self.spans)
        self.outside = (self.times < 1.0) & (frames >= 12 * fps)
        black_from = rng.uniform(0.45, 0.8) * frames
        index = np.arange(frames)
        self.black = (index >= black_from) & (index < black_from + fps) & (frames >= 8 * fps)
        self.tools = self._visible_tools()
        self.smoke = self._smoke(rng)

    def truth(self, path: Path) -> SyntheticVideo:
        scene = self.scene
        return SyntheticVideo(
            path.stem, path, self.fps, scene.centre, scene.radius, self.phases, self.tools, self.black, self.outside
        )

    def images(self) -> Iterator[np.ndarray]:
        """The frames in order, uint8 [height, width, 3] RGB."""
        black = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        for index, seconds in enumerate(self.times):
            if self.black[index]:
                yield black
            elif self.outside[index]:
                yield self.scene.finish(self.scene.outside(seconds), 0.0, seconds)
            else:
                image = self._tissue(index, seconds)
                for use, tip in self._in_use(seconds):
                    draw(image, use, tip, self.scene.centre, self.scene.radius)
                yield self.scene.finish(image, self.smoke[index], seconds)

    def _tissue(self, index: int, seconds: float) -> np.ndarray:
        span = self.span_of[index]
        phase, start, _ = self.spans[span]
        image = self.scene.tissue(phase, seconds)
        share = (seconds - start) / _CROSS_FADE
        if span == 0 or share >= 1:
            return image
        before = self.scene.tissue(self.spans[span - 1][0], seconds)
        return (share * image + (1 - share) * before).astype(np.uint8)

    def _in_use(self, seconds: float) -> list[tuple[Use, tuple[float, float]]]:
        placed = [(use, use.tip(seconds, self.scene.centre, self.scene.radius)) for use in self.uses]
        return [(use, tip) for use, tip in placed if tip is not None]

    def _visible_tools(self) -> np.ndarray:
        visible = np.zeros((len(self.times), len(TOOLS)), np.uint8)
        for index in np.flatnonzero(~(self.black | self.outside)):
            for use, tip in self._in_use(self.times[index]):
                if is_visible(tip, self.size, self.scene.centre, self.scene.radius):
                    visible[index, TOOLS.index(use.tool)] = 1
        return visible

    def _smoke(self, rng: np.random.Generator) -> np.ndarray:
        """Smoke rises while a hook or bipolar burns and clears within seconds: float [frames], 0 to 1."""
        burning = np.asarray(self.tools[:, [TOOLS.index("Hook"), TOOLS.index("Bipolar")]].any(axis=1))
        swing = np.asarray(np.sin(2 * np.pi * self.times / rng.uniform(3, 6) + rng.uniform(0, 6)))
        density = np.zeros(len(self.times))
        for index in range(1, len(density)):
            target = 0.8 if burning[index] and swing[index] > 0.3 else 0.0
            density[index] = density[index - 1] + (target - density[index - 1]) / (0.6 * self.fps)
        return density


def _plan_phases(rng: np.random.Generator, seconds: float) -> list[tuple[int, float, float]]:
    """A plausible course: (phase id, start, end) in seconds. Very short videos get the first phases only."""
    order = _ORDERS[rng.integers(len(_ORDERS))][: max(1, int(seconds))]
    lengths = np.array([_SHARES[phase] for phase in order]) * rng.uniform(0.7, 1.3, len(order))
    ends = seconds * np.cumsum(lengths) / lengths.sum()
    starts = np.concatenate([[0.0], ends[:-1]])
    return [(phase, float(a), float(b)) for phase, a, b in zip(order, starts, ends, strict=True)]


def encode_video(
    path: Path, images: Iterator[np.ndarray], size: tuple[int, int], fps: int, tick: Callable[[int], None] | None = None
) -> None:
    """Write frames, uint8 [height, width, 3] RGB, as Cholec80 is encoded; `tick` is called with the frames done."""
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=_X264)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(images, start=1):
            # OpenCV converts five times faster than the encoder's own scaler.
            planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
            if tick is not None:
                tick(number)
        container.mux(stream.encode())


def _write_phases(path: Path, phases: np.ndarray) -> None:
    rows = "".join(f"{frame}\t{PHASES[phase]}\n" for frame, phase in enumerate(phases))
    write_text(path, f"Frame\tPhase\n{rows}")


def _write_tools(path: Path, tools: np.ndarray) -> None:
    # The released tool files end one row before the phase files do; readers that join by row number shift there.
    numbers = range(0, len(tools), _TOOL_STEP)[: -1 if len(tools) > _TOOL_STEP else None]
    rows = "".join(f"{frame}\t" + "\t".join(map(str, tools[frame])) + "\n" for frame in numbers)
    write_text(path, "Frame\t" + "\t".join(TOOLS) + f"\n{rows}")
