"""Building stores in tests of what can go wrong."""

from __future__ import annotations

from surgdino.datasets.manifest import Manifest, Video
from surgdino.frames.store import StoreSettings, build_store

SETTINGS = StoreSettings.of(fps=5, content_crop=False)


def manifest_of(root, paths):
    return Manifest("folder", root, tuple(Video(p.stem, p.stem, p, 25.0) for p in paths))


def build(manifest, folder, **options):
    return build_store(manifest, folder, SETTINGS, progress=False, **{"workers": 1, **options})


def shards(folder):
    return {p.name: p.stat().st_ino for p in folder.rglob("*.zip")}
