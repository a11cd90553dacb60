"""Small sets of questions about frames, in the layouts of EndoVis18-VQA, Cholec80-VQA, PitVQA and SurgVU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from surgdino.datasets.card import load_card
from surgdino.datasets.synthetic.cholec80 import Operation, mark_generated
from surgdino.paths import write_text


def write_questions(
    root: str | Path, dataset: str = "pitvqa", videos: int = 4, frames: int = 16, seed: int = 0
) -> dict[str, dict[int, list[tuple[str, str]]]]:
    """Write a set in a dataset's layout under `root`, with operations of its own names.

    Each kind of question is asked of every frame; the answer tells of the phase that the frame shows.

    Returns:
        Video id -> frame -> (question, answer) of its pairs.
    """
    root, card, truths = Path(root), load_card(dataset), dict[str, dict[int, list[tuple[str, str]]]]()
    mark_generated(root)
    layout = card.questions
    assert layout is not None
    answers = layout.answers or {"phase": ("access", "dissection", "closure"), "presence": ("no", "yes")}
    for number in [entry for entry in card.videos if isinstance(entry, int)][:videos] or range(1, videos + 1):
        digits = f"{number:02d}" if dataset == "pitvqa" else str(number)
        operation = Operation(np.random.default_rng([seed, number]), frames, 1, (64, 48))
        truth: dict[int, list[tuple[str, str]]] = {}
        pictures = root / layout.pictures[0].replace("#", digits)
        pictures.mkdir(parents=True, exist_ok=True)
        for place, (image, phase) in enumerate(zip(operation.images(), operation.phases.tolist(), strict=True)):
            frame = place * layout.every
            file = layout.name.replace("#", f"{frame:03d}")
            Image.fromarray(image).save(pictures / f"{file.removesuffix('_QA')}.png")
            truth[frame] = [(f"what is the {kind}?", given[phase % len(given)]) for kind, given in answers.items()]
            lines = "".join(f"{question}|{answer}\n" for question, answer in truth[frame])
            write_text(root / layout.files.replace("#", digits) / f"{file}.txt", lines)
        name = next(part for part in layout.files.split("/") if "#" in part)
        truths[name.replace("#", digits)] = truth
    return truths


def write_surgvu(root: str | Path, cases: int = 4, seconds: int = 3, seed: int = 0) -> dict[str, tuple[str, list[str]]]:
    """Write clips of SurgVU 2025, category 2, asked whether there is blood; case -> question and answers."""
    root, truths = Path(root), dict[str, tuple[str, list[str]]]()
    mark_generated(root)
    for number in range(1, cases + 1):
        name, yes = f"case{number}", number % 2 == 1
        image = np.random.default_rng([seed, number]).integers(0, 60, (48, 64, 3), np.uint8)
        image[..., 0] += 150 * yes
        (root / name / "frames").mkdir(parents=True, exist_ok=True)
        for second in range(seconds):
            Image.fromarray(image).save(root / name / "frames" / f"frame_{second:06d}.jpg")
        said = ["Yes", "Yes, there is blood.", "There is blood."] if yes else ["No", "No, there is none.", "No blood."]
        truths[name] = ("Is there blood in this clip?", said)
        write_text(root / name / f"{name}_question.json", json.dumps(truths[name][0]))
        write_text(root / name / f"{name}.json", json.dumps(said))
    return truths
