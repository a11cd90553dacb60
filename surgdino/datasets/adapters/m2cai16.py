"""m2cai16-workflow: videos with a phase file of the same name, anywhere in the folder."""

from __future__ import annotations

import re
from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import Entry
from surgdino.datasets.files import is_video, walk
from surgdino.datasets.label_files import read_phases
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Video

_NAME = re.compile(r"(test_)?workflow_video_0*(\d+)", re.IGNORECASE)
_STEP = 25  # a row a frame as released; some sites keep every 25th


class M2cai16(Adapter):
    """Videos and phases, joined by name. Training and test videos are both numbered from 1."""

    def read(self) -> Manifest:
        paths = [path for _, files in walk(self.root) for path in files]
        videos = self.keyed(filter(is_video, paths), _name)
        files = self.keyed((path for path in paths if path.suffix.lower() == ".txt"), _name)
        labels: dict[str, FrameLabels] = {}
        rows = []
        for name in sorted(videos, key=lambda name: (name.startswith("test"), name)):
            entry = _entry(name)
            self.check_video(videos[name], entry)
            found = self._phases(files[name]) if name in files else None
            if found is not None:
                labels[name] = found
            frames = int(found.numbers[-1]) + 1 if found is not None else None
            rows.append(Video(name, self.card.operation_of(entry), videos[name], self.card.fps, frames))
        self.pair("phase", videos, files, lambda name: videos[name].with_suffix(".txt"), lambda name: f"{name}.mp4")
        self.check_complete({_entry(name) for name in videos}, self.root)
        return self.manifest(rows, [Labels("phase", self.card.phases, labels)])

    def _phases(self, path: Path) -> FrameLabels | None:
        labels, problems = read_phases(path, self.card)
        if problems:
            sparse, faults = read_phases(path, self.card, _STEP)
            if len(sparse or ()) > len(labels or ()):
                labels, problems = sparse, faults
        self.problems += problems
        return labels


def _name(path: Path) -> str | None:
    """The name as released: `workflow_video_01` or `test_workflow_video_01`."""
    found = _NAME.fullmatch(path.stem)
    return f"{(found[1] or '').lower()}workflow_video_{int(found[2]):02d}" if found else None


def _entry(name: str) -> Entry:
    """How the card lists a video: training videos by number, test videos by name."""
    return name if name.startswith("test") else int(name.rpartition("_")[2])
