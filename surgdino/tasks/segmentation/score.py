"""How masks are scored: picture by picture, PNG folders on both sides joined on folder and frame (or name)."""

from __future__ import annotations

import numpy as np

from surgdino.datasets.adapters.dsad import RATERS
from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import pair_videos
from surgdino.metrics.scores import ScoreRequest, TaskScores, chosen
from surgdino.metrics.segmentation import PROTOCOL
from surgdino.tasks.scoring.folders import Folders
from surgdino.tasks.scoring.scoring import Scoring
from surgdino.tasks.segmentation.files import MaskImage, index_masks, read_mask_image, size_error
from surgdino.tasks.segmentation.tally import PROTOCOLS, SegmentationTally

Key = tuple[str, ...]


class SegmentationScoring(Scoring):
    """Dice, IoU, HD95 and NSD of masks; PNG folders."""

    PROTOCOLS = PROTOCOLS

    def scores(self, request: ScoreRequest) -> TaskScores:
        """The panel: what is unlabelled differs from picture to picture, and the panel itself leaves it out."""
        return self.panel(request)

    def panel(self, request: ScoreRequest) -> TaskScores:
        """Masks that fit into memory."""
        protocols = chosen(request.protocol, self.PROTOCOLS, self.PROTOCOLS)
        tally = SegmentationTally(request.classes, request.operations)
        for video in pair_videos(request.truths, request.predictions):
            truth, prediction = request.truths[video], request.predictions[video]
            odd = sorted(set(truth) ^ set(prediction))
            if odd:
                side = "prediction" if odd[0] in truth else "ground truth"
                raise SurgdinoError(
                    f"a picture without {side}", place=f"{video}, frame {odd[0]}", found=f"{len(odd)} such"
                )
            unlabelled = (request.unlabelled or {}).get(video, {})
            for frame in sorted(truth):
                labelled = ~np.asarray(unlabelled[frame], dtype=bool) if frame in unlabelled else None
                tally.add(video, frame, truth[frame], prediction[frame], labelled)
        return tally.scores(protocols)

    def read_and_score(self, folders: Folders) -> TaskScores:
        """The classes are those given, those that the card labels together, or one, `foreground`."""
        card, protocols = folders.card, chosen(folders.protocol, self.PROTOCOLS, self.PROTOCOLS)
        classes = folders.classes or ((card.multilabel or card.mask_classes) if card else ()) or ("foreground",)
        truths = index_masks(folders.inside(("masks",)), classes)
        # DSAD keeps its raters' masks in folders beside the released ones, under the same names.
        truths = {key: picture for key, picture in truths.items() if key[-2:-1] not in [(rater,) for rater in RATERS]}
        predictions = index_masks(folders.predictions, classes)
        pairs = _paired(truths, predictions, folders)
        # The folder that a picture lies in; of pictures that lie flat, each is an operation by itself.
        operations = {_video(key): folders.operation_of("/".join(key[:-1]) or key[0]) for key, _, _ in pairs}
        tally = SegmentationTally(classes, operations, hd95=folders.hd95 or PROTOCOL not in protocols)
        for number, (key, truth, prediction) in enumerate(pairs):
            masks, guesses, valid = _masks(truth, prediction, classes, folders)
            tally.add(_video(key), int(key[-1]) if _is_frame(key) else number, masks, guesses, valid=valid)
        return tally.scores(protocols)


def _paired(
    truths: dict[Key, MaskImage], predictions: dict[Key, MaskImage], folders: Folders
) -> list[tuple[Key, MaskImage, MaskImage]]:
    """Pictures of both sides. `finetune` writes a picture that is a video by itself as its frame 0."""
    own = {_spelled(key, truths): picture for key, picture in predictions.items()}
    truths = {_spelled(key, own): picture for key, picture in truths.items()}
    missing = [key for key in truths if key not in own or not own[key].files]
    extra = [key for key in own if key not in truths]
    if folders.refuses(len(missing), len(truths)):
        _refuse_shift(truths, own, folders)
        raise SurgdinoError(
            f"{len(missing)} of {len(truths)} pictures have no predicted mask",
            file=folders.predictions,
            expected=truths[missing[0]].name,
            found=", ".join(sorted(picture.name for picture in predictions.values())[:3]),
            fix="write an empty mask where nothing was predicted, or score with missing=ignore",
        )
    if extra and not folders.ignore_extra:
        raise SurgdinoError(
            f"{len(extra)} predicted masks are not in the truth",
            file=folders.predictions / own[extra[0]].name,
            expected=f"one of {len(truths)} pictures",
            fix="take them out, or score with extra=ignore",
        )
    left_out = set(missing)
    return [(key, truths[key], own[key]) for key in sorted(truths) if key not in left_out]


def _spelled(key: Key, others: dict[Key, MaskImage]) -> Key:
    """`(name, 0)` where the other side has `(name,)`, and the other way round, is the same picture."""
    if key not in others and key[-1] == "0" and len(key) > 1 and _bare(key) in others:
        return _bare(key)
    return key


def _bare(key: Key) -> Key:
    *folders, last = key[:-1]
    return (*folders, str(int(last)) if last.isdecimal() else last)


def _refuse_shift(truths: dict[Key, MaskImage], predictions: dict[Key, MaskImage], folders: Folders) -> None:
    """Frames counted from 1 by one side, which no count of files would tell."""
    for shift in (1, -1):
        moved = {(*key[:-1], str(int(key[-1]) - shift)) if _is_frame(key) else key for key in predictions}
        if moved >= set(truths) and any(_is_frame(key) for key in predictions):
            reason = ": they are counted from 1" if shift == 1 else ""
            raise SurgdinoError(
                f"all frames are shifted by {shift}{reason}",
                file=folders.predictions,
                expected=truths[min(truths)].name,
                found=predictions[min(predictions)].name,
                fix="number the frames as the truth does",
            )


def _masks(
    truth: MaskImage, prediction: MaskImage, classes: tuple[str, ...], folders: Folders
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    guesses, _ = read_mask_image(prediction, classes)
    assert guesses is not None  # pictures without a file were refused
    masks, valid = read_mask_image(truth, classes)
    masks = np.zeros_like(guesses) if masks is None else masks  # nothing of these classes is visible
    if masks.shape != guesses.shape:
        raise size_error(next(iter(prediction.files.values())), masks.shape[1:], guesses.shape[1:])
    return masks, guesses, valid


def _is_frame(key: Key) -> bool:
    return key[-1].isdecimal()


def _video(key: Key) -> str:
    return "/".join(key[:-1] if _is_frame(key) and len(key) > 1 else key)
