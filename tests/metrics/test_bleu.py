"""BLEU by hand: SurgVU's published example, and the definition written out."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from surgdino.metrics.bleu import bleu_counts, bleu_of, central, sentence_bleu, tokens

# Five references of 1, 8, 4, 6 and 10 words; "no" is not in the third.
REFERENCES = ("No", "No, a b c d e f g.", "There is not one", "No a b c d e.", "No, a b c d e f g h i.")


def test_a_word_against_sentences_is_the_challenges_published_example():
    found = [sentence_bleu("no", [one])[3] for one in REFERENCES]
    assert found == pytest.approx([0.177828, 0.000162, 0, 0.001198, 0.0000219], abs=6e-7)
    assert sentence_bleu("no", REFERENCES)[3] == found[0], "the highest counts"


def test_bleu_by_hand():
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, none of 3 fours.
    candidate, reference = "the cat sat on the mat", "the cat lay on the mat there"
    short = exp(1 - 7 / 6)
    precisions = [5 / 6, 3 / 5, 1 / 4, 0.1 / 3]
    expected = [short * np.prod(precisions[: n + 1]) ** (1 / (n + 1)) for n in range(4)]
    assert sentence_bleu(candidate, [reference]) == pytest.approx(expected)
    counts = bleu_counts(tokens(candidate), [tokens(reference)])
    assert counts.tolist() == [5, 3, 1, 0, 6, 5, 4, 3, 6, 7]
    assert bleu_of(counts, smooth=False) == pytest.approx([*expected[:3], 0])


def test_counts_of_a_corpus_add_up_and_a_word_counts_no_oftener_than_a_reference_has_it():
    four = ["c", "d", "e", "f"]
    both = bleu_counts(["a", "a", "a"], [["a", "b"], ["a", "a"]]) + bleu_counts(four, [four])
    assert both.tolist() == [2 + 4, 1 + 3, 2, 1, 3 + 4, 2 + 3, 1 + 2, 1 + 1, 7, 2 + 4]
    assert bleu_of(both, smooth=False)[0] == pytest.approx(6 / 7)


@pytest.mark.parametrize("candidate", ["", "...", "nothing alike"])
def test_without_a_word_in_common_it_is_0(candidate):
    assert sentence_bleu(candidate, ["yes"]).tolist() == [0, 0, 0, 0]


def test_the_central_sentence_is_nearest_to_the_others():
    assert central(["Blood.", "There is some blood.", "There is some blood here."]) == "There is some blood."
