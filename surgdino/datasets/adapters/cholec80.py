"""Cholec80's layout: `videos/`, `phase_annotations/`, `tool_annotations/`, joined by the video's number."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import Card
from surgdino.datasets.files import entries, is_video
from surgdino.datasets.label_files import read_phases, read_tools
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, Video
from surgdino.errors import SurgdinoError

_VIDEO = re.compile(r"video0*(\d+)", re.IGNORECASE)
_TIMESTAMPS = re.compile(r"video\d+-timestamp\.txt", re.IGNORECASE)
_FOLDERS = ("videos", "phase_annotations", "tool_annotations")
_DOCUMENTS = re.compile(r"readme.*|licen[cs]e.*|.*\.(md|pdf|txt)", re.IGNORECASE)

_Reader = Callable[[Path, Card], tuple[FrameLabels | None, list[Problem]]]


class Cholec80(Adapter):
    """Videos, phases and tools."""

    def read(self) -> Manifest:
        if not (self.root / "videos").is_dir():
            raise self._another_layout()
        paths = [path for path in entries(self.root / "videos") if not _TIMESTAMPS.fullmatch(path.name)]
        files = self.keyed(paths, _number_of_video, "video01.mp4")
        for number, path in files.items():
            self.check_video(path, number)
        for path in entries(self.root):
            if path.name not in _FOLDERS and not _DOCUMENTS.fullmatch(path.name):
                self.unexpected(path, ", ".join(_FOLDERS))
        phases, sound_phases = self._labels("phase", read_phases, files)
        tools, sound_tools = self._labels("tool", read_tools, files)
        for number in sorted(sound_phases & sound_tools):
            self._check_ends(number, phases[number], tools[number])
        self.check_complete(files, self.root / "videos")
        videos = []
        for number, path in sorted(files.items()):
            last_frames = [
                int(labels[number].numbers[-1])
                for labels, sound in ((phases, sound_phases), (tools, sound_tools))
                if number in sound
            ]
            frames = max(last_frames) + 1 if last_frames else None
            videos.append(Video(self.video_id(number), self.card.operation_of(number), path, self.card.fps, frames))
        by_task = (("phase", self.card.phases, phases), ("tools", self.card.tools, tools))
        labels = [
            Labels(task, classes, {self.video_id(n): v for n, v in found.items()}) for task, classes, found in by_task
        ]
        return self.manifest(videos, labels)

    def video_id(self, key: int | str) -> str:
        return f"video{key:02d}"

    def _labels(self, kind: str, reader: _Reader, videos: dict[int, Path]) -> tuple[dict[int, FrameLabels], set[int]]:
        """Video number -> its labels as far as they can be read, and the numbers of the files without a fault."""
        folder = self.root / f"{kind}_annotations"
        pattern = re.compile(rf"video0*(\d+)-{kind}\.txt", re.IGNORECASE)

        def number(path: Path) -> int | None:
            found = pattern.fullmatch(path.name)
            return int(found[1]) if found else None

        files = self.keyed(entries(folder), number, f"video01-{kind}.txt")
        labels, sound = {}, set()
        for key, path in files.items():
            found, problems = reader(path, self.card)
            self.problems += problems
            if found is not None and key in videos:
                labels[key] = found
                sound |= set() if problems else {key}
        self.pair(
            kind,
            videos,
            files,
            lambda number: folder / f"{self.video_id(number)}-{kind}.txt",
            lambda number: f"videos/{self.video_id(number)}.mp4",
        )
        return labels, sound

    def _check_ends(self, number: int, phases: FrameLabels, tools: FrameLabels) -> None:
        """The released tool files end up to two rows before the phases; anything else is a file cut short."""
        last_phase, last_tool = int(phases.numbers[-1]), int(tools.numbers[-1])
        first = last_phase - 2 * self.card.tool_step + 1
        if not first <= last_tool <= last_phase:
            self.problem(
                "error",
                "tools and phases end apart",
                self.root / "tool_annotations" / f"{self.video_id(number)}-tool.txt",
                expected=f"a last row between frames {max(first, 0)} and {last_phase}, where the phases end",
                found=last_tool,
                fix="one of the two files is cut short: copy both from the release",
            )

    def _another_layout(self) -> SurgdinoError:
        inside = next((p for p in entries(self.root) if (p / "videos").is_dir()), None)
        if self.root.name == "videos" and any(is_video(p) for p in entries(self.root)):
            fix = f"point data.root one level up, at {self.root.parent}"
        elif inside is not None:
            fix = f"point data.root at {inside}"
        else:
            fix = "point data.root at the folder that holds videos/, or read any folder of videos with dataset=folder"
        expected = "a folder videos/ in it"
        return SurgdinoError("this is not Cholec80's layout", file=self.root, expected=expected, fix=fix)


def _number_of_video(path: Path) -> int | None:
    found = _VIDEO.fullmatch(path.stem)
    return int(found[1]) if found and is_video(path) else None
