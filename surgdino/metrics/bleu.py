"""BLEU (Papineni et al. 2002) of short answers, digit for digit as NLTK's `sentence_bleu` and `corpus_bleu`.

`sentence_bleu` smooths as Chen and Cherry 2014, method 1: an n-gram order without a match has 0.1 of one. SurgVU 2025
takes the highest over the references, each alone, and the mean over questions.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4
_EPSILON = 0.1
_MARKS = str.maketrans("", "", string.punctuation)


def tokens(sentence: str) -> list[str]:
    """Words in lower case without punctuation."""
    return sentence.lower().translate(_MARKS).split()


def bleu_counts(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """What BLEU is made of, int64 [10]: matches and n-grams of each order, words, and those of the nearest reference.

    Counts of several sentences add up to those of a corpus.
    """
    matches, total = [], []
    for order in range(1, ORDERS + 1):
        found, most = _ngrams(candidate, order), Counter[tuple[str, ...]]()
        for reference in references:
            most |= _ngrams(reference, order)
        matches.append(sum((found & most).values()))
        total.append(max(1, sum(found.values())))
    length = min((len(r) for r in references), key=lambda words: (abs(words - len(candidate)), words))
    return np.array([*matches, *total, len(candidate), length], np.int64)


def bleu_of(counts: np.ndarray, *, smooth: bool) -> np.ndarray:
    """BLEU-1 to BLEU-4 of such counts, float64 [4]; 0 where no word matches.

    Args:
        smooth: as the sentence's; otherwise an order without a match makes it 0.
    """
    matches, total, (words, wanted) = counts[:ORDERS].astype(float), counts[ORDERS : 2 * ORDERS], counts[-2:]
    if not matches[0]:
        return np.zeros(ORDERS)
    matches[matches == 0] = _EPSILON if smooth else 0.0
    with np.errstate(divide="ignore"):
        logs = np.cumsum(np.log(matches / total)) / np.arange(1, ORDERS + 1)
    return np.exp(logs + min(0.0, 1 - wanted / words))


def sentence_bleu(candidate: str, references: Sequence[str]) -> np.ndarray:
    """BLEU-1 to BLEU-4 of an answer, float64 [4]: of each order the highest over the references, each alone."""
    words = tokens(candidate)
    return np.max([bleu_of(bleu_counts(words, [tokens(one)]), smooth=True) for one in references], axis=0)


def central(sentences: Sequence[str]) -> str:
    """Of sentences that say the same, the one that scores best against the others (BLEU-4); the first of equals."""
    if len(sentences) < 3:
        return sentences[0]
    means = [
        np.mean([sentence_bleu(one, [other])[-1] for k, other in enumerate(sentences) if k != place])
        for place, one in enumerate(sentences)
    ]
    return sentences[int(np.argmax(means))]


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))
