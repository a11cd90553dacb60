"""Masks on the frames of videos, as a labelling tool exported them."""

from __future__ import annotations

from collections.abc import Sequence

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.drawn_pictures import Export, Film, labels_of, object_labels_of, objects_of, plain_source
from surgdino.datasets.exported_pictures import boxes_alone, classes_of, drawings, near_spellings, objects_labels
from surgdino.datasets.files import numbered_images, plain_name
from surgdino.datasets.label_table import video_spellings
from surgdino.datasets.manifest import Labels, Video
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.datasets.objects import FrameInstances, VideoInstances


def read_films(adapter: Adapter, exports: Sequence[Export], videos: Sequence[Video]) -> list[Labels]:
    """What the exports draw on frames of the videos. Frames on which nothing is drawn are unlabelled."""
    drawn = labels_of(exports)
    classes, spellings = classes_of(adapter, exports, drawn), video_spellings(videos)
    of_objects = classes_of(adapter, exports, object_labels_of(exports))
    frames: dict[str, dict[int, FrameMasks]] = {}
    objects: dict[str, dict[int, FrameInstances]] = {}
    shapes = 0
    for export in exports:
        for film in export.films:
            if not any(picture.objects for picture in film.frames.values()):
                continue
            video = _video_of(export, film, videos, spellings)
            if video is None:
                continue
            numbers = list(numbered_images(video.path).items()) if video.is_image_folder else None
            found = frames.setdefault(video.id, {})
            for place, picture in sorted(film.frames.items()):
                if numbers is not None and place >= len(numbers):
                    export.tell("a frame of no picture", picture.place, f"{len(numbers)} pictures", place + 1)
                    continue
                number, path = numbers[place] if numbers is not None else (place, video.path)
                size = None if video.is_image_folder else film.size
                objects.setdefault(video.id, {}).setdefault(number, objects_of(export, picture, of_objects))
                if not picture.shapes:
                    continue
                if number in found:
                    what, expected = "frames that two exports draw: the first counts", "each in one file"
                    export.tell(what, picture.place, expected, video.id, error=False)
                    continue
                found[number] = FrameMasks(path, drawings(export, picture, classes), size)
                shapes += sum(map(len, picture.shapes.values()))
    values = {video: VideoMasks(found, classes) for video, found in frames.items() if found}
    tools = ", ".join(dict.fromkeys(export.tool for export in exports))
    source = exports[0].path.name if len(exports) == 1 else f"{len(exports)} files"
    count = sum(map(len, values.values()))
    understood = (
        f"{shapes:,} masks of {len(classes)} classes on {count:,} frames, {len(values)} of {len(videos)} videos"
    )
    adapter.notes.append(f"{source} ({tools}): {understood}: {', '.join(classes)}")
    adapter.notes += boxes_alone([frame for found in objects.values() for frame in found.values()])
    adapter.problems += [problem for export in exports for problem in export.problems.values()]
    adapter.problems += near_spellings(drawn, exports[0].path)
    boxes = {video: VideoInstances(found, of_objects) for video, found in objects.items()}
    return [Labels("masks", classes, values), *objects_labels(of_objects, boxes)]


def _video_of(export: Export, film: Film, videos: Sequence[Video], spellings: dict[str, Video]) -> Video | None:
    """The video that a film is of, by its name, that of the export or that of its folder; or the only one there is."""
    called = [name for source in film.names for name in plain_source(source)]
    by_file = [plain_name(export.path.stem), plain_name(export.path.parent.name)]
    for name in (*called, *by_file):
        if video := spellings.get(name, spellings.get(name.casefold())):
            break
    else:
        video = videos[0] if len(videos) == 1 else None
    if video is None:
        expected = "a video of the folder, or a file named after it"
        found = ", ".join(film.names) or "no name"
        export.tell("frames of a video that is not here", "meta, source", expected, found)
    elif not video.is_image_folder and film.size is None:
        export.tell("frames of a video without its size", "meta, original_size", "width and height", "none")
        return None
    elif called and video not in (spellings.get(name.casefold()) for name in called):
        what, fix = "the export names another video", video.id
        export.tell(what, "meta, source", fix, film.names[0], error=False)
    return video
