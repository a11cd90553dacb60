"""`data.json`: what a run was given to look at, video by video, for whoever reads its report without the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from surgdino.frames.shard import FLAGS
from surgdino.frames.store import FrameStore, StoredVideo
from surgdino.paths import atomic_write

NAME = "data.json"


def write_data(folder: Path, store: FrameStore) -> Path:
    """Write `data.json` into a run folder: counts and geometry only, nothing of the pictures themselves.

    Raises:
        SurgdinoError: the file system refused.
    """
    summary = store.summary()
    record = {
        "videos": [_video(video, store, summary["content"][video.id]) for video in store.videos],
        "left_out": summary["left_out"],
        "set_aside": summary["set_aside"],
    }
    with atomic_write(folder / NAME) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder / NAME


def _video(video: StoredVideo, store: FrameStore, content: dict[str, Any]) -> dict[str, Any]:
    flags = video.shard.columns["flags"]
    left_out = {flag: int((flags >> place & 1).sum()) for place, flag in enumerate(FLAGS)}
    return {
        "id": video.id,
        "operation": video.operation,
        "frames": int(((flags == 0) | store.flagged).sum()),
        "left_out": {flag: count for flag, count in left_out.items() if count},
        "kind": content["kind"],
        "share": round(content["share"], 4),
        "stored_size": list(content["stored_size"]),
    }
