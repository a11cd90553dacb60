"""What was learned, in pictures of the same frames before and after: colours, neighbours, a map, attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.errors import first_of
from surgdino.frames.content import Content
from surgdino.report.blocks import (
    Block,
    Heading,
    Maps,
    Paragraph,
    Picture,
    Scale,
    Strip,
    Strips,
    picture,
    pixel_picture,
)
from surgdino.report.colours import class_colours, group_colours, readable_name
from surgdino.report.feature_map import flat, legend, map_svg, turned_towards
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section
from surgdino.report.views import (
    alike_by_phase,
    as_grid,
    class_attention,
    component_colours,
    encode,
    neighbours_elsewhere,
    over_frame,
    patches_inside,
    squared,
)

_SHOWN, _QUERIES, _NEIGHBOURS, _SIDE = 6, 4, 4, 200
# More patches than in training (positions are interpolated): at 14 x 14 an instrument is three squares wide.
_CELLS = 24
_HEAT = "inferno"  # perceptually uniform (van der Walt and Smith 2015): equal steps look equal, in grey too
_IN_LEGEND = 12
_FEW = 3  # frames of which a map is none


@dataclass(frozen=True)
class Sample:
    """Frames to look at.

    Attributes:
        frames: uint8 RGB [H, W, 3] each.
        operations: of each, as the page may call it.
        names: of each, such as `video05 0:12`.
        phases: of each, "" where it is not known.
        contents: where each shows something, in its own pixels.
    """

    frames: Sequence[np.ndarray]
    operations: Sequence[str]
    names: Sequence[str]
    phases: Sequence[str]
    contents: Sequence[Content]

    def spread(self, count: int, among: Sequence[int] | None = None) -> list[int]:
        """Positions of `count` frames, one operation after another; `among` some of them only."""
        places = range(len(self.frames)) if among is None else among
        by_operation = [
            [i for i in places if self.operations[i] == operation]
            for operation in dict.fromkeys(self.operations[i] for i in places)
        ]
        rounds = -(-count // len(by_operation))
        chosen = []
        for place in range(count):
            own = by_operation[place % len(by_operation)]
            chosen.append(own[(2 * (place // len(by_operation)) + 1) * len(own) // (2 * rounds)])
        return list(dict.fromkeys(chosen))

    def title(self, place: int) -> str:
        """Operation, video and time, and the phase where it is known."""
        named = (self.operations[place], self.names[place], readable_name(self.phases[place]))
        return " · ".join(filter(None, named))

    def picture(self, place: int, caption: str = "", mark: str = "") -> Picture:
        """One frame as a square."""
        return picture(squared(self.frames[place], _SIDE), caption, mark)

    def inside(self, places: Sequence[int], side: int) -> np.ndarray:
        """bool [places, side * side]: the patches that are not of the border."""
        return np.stack([patches_inside(self.contents[i], self.frames[i].shape, side) for i in places])


class Learned(Section):
    """Pictures of the same frames through several backbones.

    Args:
        models: what it is called -> backbone, such as `before` and `after`; the last one is the run's own.
        note: why there is only one, say.
        handled: how the page has to be handled.
    """

    id, title, order = "learned", "What was learned, in pictures", 25

    def __init__(self, sample: Sample, models: Mapping[str, LoadedBackbone], handled: str, note: str = "") -> None:
        self.sample, self.models, self.handled, self.note = sample, models, handled, note
        self.shown = sample.spread(_SHOWN)

    @cached_property
    def cls(self) -> dict[str, np.ndarray]:
        """Class tokens [n, D] of all frames by each backbone."""
        return {name: encode(model, self.sample.frames)[0] for name, model in self.models.items()}

    def of_run(self, record: RunRecord) -> list[Block]:
        """Colours, neighbours, the map, attention."""
        notes = [f"These are {len(self.sample.frames)} frames of the run's data. {self.handled}"]
        trained, there = record.model.get("operations"), dict.fromkeys(self.sample.operations)
        if trained is not None and (new := [name for name in there if name not in trained]):
            notes[0] += (
                f" {len(new)} of their {len(there)} operations were not trained on: {first_of(new, _IN_LEGEND)}."
            )
        head: list[Block] = [Paragraph(text, note=True) for text in [*notes, *filter(None, [self.note])]]
        return [*head, *self._components(), *self._neighbours(), *self._map(), *self._attention()]

    def _strips(self, rows: Mapping[str, Sequence[Picture]]) -> Strips:
        """A strip a shown frame: itself, then what each backbone makes of it."""
        strips = []
        for k, place in enumerate(self.shown):
            made = [pictures[k] for pictures in rows.values()]
            strips.append(Strip(self.sample.title(place), [self.sample.picture(place, "frame"), *made]))
        return Strips(strips)

    def _components(self) -> list[Block]:
        frames, found = [self.sample.frames[i] for i in self.shown], dict[str, np.ndarray]()
        reference: np.ndarray | None = None
        for name, model in [*self.models.items()][::-1]:
            patches = encode(model, frames, _detailed(model))[1]
            inside = self.sample.inside(self.shown, round(patches.shape[1] ** 0.5))
            found[name] = component_colours(patches, reference, inside)
            reference = found[name] if reference is None else reference
        rows = {name: [pixel_picture(as_grid(each), name) for each in found[name]] for name in self.models}
        last = list(self.models)[-1]
        text = (
            "Principal components of the patch features, the first three as red, green and blue, computed over these "
            "frames together, without the border around the endoscope's picture, which is left black. The backbone "
            "sees patches of equal colour as alike; tissue and instruments should differ."
        )
        if len(self.models) > 1:
            text += f" Components are turned towards those of {last!r} (Procrustes), so a colour means about the same."
        return [Heading("Patch features as colours"), Paragraph(text, note=True), self._strips(rows)]

    def _neighbours(self) -> list[Block]:
        """Frames of known phase alone, where two operations have some: then every neighbour is a hit or a miss."""
        sample = self.sample
        among = [i for i, phase in enumerate(sample.phases) if phase]
        if judged := len({sample.operations[i] for i in among}) > 1:
            text = f" Only the {len(among)} frames whose phase is known are looked at. {self._share()}"
        else:
            among, text = list(range(len(sample.frames))), " Whether they show the same phase is not known."
        if len({sample.operations[i] for i in among}) < 2:
            return []
        operations, queries = [sample.operations[i] for i in among], sample.spread(_QUERIES, among)
        asked, strips = [among.index(query) for query in queries], []
        nearest = {
            name: neighbours_elsewhere(cls[among], operations, asked, _NEIGHBOURS) for name, cls in self.cls.items()
        }
        for place, query in enumerate(queries):
            for name, rows in nearest.items():
                found = [self._found(query, among[i], judged) for i in rows[place]]
                strips.append(Strip(f"{name}: {sample.title(query)}", [self._query(query), *found]))
        text = (
            "Left (▸) a frame, then the frames whose class tokens are nearest to its own (cosine), nearest first. "
            f"Frames of its own operation are left out: they look alike whatever was learned.{text}"
        )
        return [Heading("Nearest frames of other operations"), Paragraph(text, note=True), Strips(strips)]

    def _query(self, place: int) -> Picture:
        return self.sample.picture(place, readable_name(self.sample.phases[place]) or "the frame", "query")

    def _found(self, query: int, place: int, judged: bool) -> Picture:
        """A neighbour, framed by whether it shows the query's phase."""
        named = f"{self.sample.operations[place]} · {self.sample.names[place]}"
        if not judged:
            return self.sample.picture(place, named, "open")
        phase = self.sample.phases[place]
        same = phase == self.sample.phases[query]
        said = "same phase" if same else readable_name(phase)
        return self.sample.picture(place, f"{said} · {named}", "hit" if same else "miss")

    def _share(self) -> str:
        """How often neighbours show the same phase, over all frames whose phase is known."""
        sample, shares = self.sample, []
        for name, cls in self.cls.items():
            share, chance, count = alike_by_phase(cls, sample.operations, sample.phases, _NEIGHBOURS)
            shares.append(f"{name} {100 * share:.0f} %")
        return (
            f"✓ in a solid frame: the same phase; ✗ in a dashed frame: another one. Of the {_NEIGHBOURS} nearest of "
            f"{count} frames, the same phase: {', '.join(shares)}; by chance {100 * chance:.0f} %."
        )

    def _map(self) -> list[Block]:
        sample = self.sample
        if len(sample.frames) < _FEW:
            return []
        found = {name: flat(cls) for name, cls in self.cls.items()}
        by, reference = list(found.values())[-1]
        points = {name: turned_towards(each, reference) for name, (_, each) in found.items()}
        titles = [sample.title(i) for i in range(len(sample.frames))]
        text = (
            f"Each point is one of the {len(titles)} frames, placed by the {by} of its class token; hover over it to "
            "read what it is. Points in a group look alike to the backbone. What it does not show: distances between "
            "groups and how wide they are mean nothing, and more or tighter groups are no measure of quality."
        )
        if len(points) > 1:
            text += " The maps are made one by one, then turned towards each other."
        blocks: list[Block] = [Heading("Map of frames"), Paragraph(text, note=True)]
        kinds = {"phase": (sample.phases, class_colours), "operation": (sample.operations, group_colours)}
        for kind, (names, coloured) in kinds.items():
            largest = [name for name, _ in Counter(filter(None, names)).most_common(_IN_LEGEND)]
            if not largest:
                continue
            colours = coloured(sorted(largest, key=list(names).index))
            maps = [map_svg(f"{name}, by {kind}", xy, names, colours, titles) for name, xy in points.items()]
            rest = [f"{kind} not known"] * ("" in names) + ["others"] * bool({*names} - {*largest, ""})
            shown = {readable_name(name) if kind == "phase" else name: colour for name, colour in colours.items()}
            blocks.append(Maps(maps, legend(shown, ", ".join(rest))))
        return blocks

    def _attention(self) -> list[Block]:
        frames = [self.sample.frames[i] for i in self.shown]
        title = Heading("Attention of the class token")
        found = {name: class_attention(model, frames, _detailed(model)) for name, model in self.models.items()}
        weights = {name: each for name, each in found.items() if each is not None}
        if len(weights) < len(found):
            return [title, Paragraph("The attention of this architecture cannot be drawn.", note=True)]
        most = max(2.0, *(float(np.quantile(each, 0.98)) for each in weights.values()))
        colours = heat_colours()
        rows = {
            name: [picture(over_frame(f, w, most, colours, _SIDE), name) for f, w in zip(frames, each, strict=True)]
            for name, each in weights.items()
        }
        text = (
            "What the class token attends to in the last block, mean over its heads, over the frame in grey. All "
            "pictures have one scale: 1 is what each token would get if all got alike."
        )
        scale = Scale(
            [_hex(colours[k]) for k in range(0, 256, 51)], ("0", f"{most:.1f} and more"), "times an even share"
        )
        return [title, Paragraph(text, note=True), scale, self._strips(rows)]


def heat_colours() -> np.ndarray:
    """uint8 [256, 3], the colour map of attention."""
    from matplotlib import colormaps

    return np.rint(255 * colormaps[_HEAT](np.arange(256))[:, :3]).astype(np.uint8)


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def _detailed(model: LoadedBackbone) -> int:
    """The side in pixels at which the model sees `_CELLS` x `_CELLS` patches."""
    return _CELLS * model.backbone.patch_size
