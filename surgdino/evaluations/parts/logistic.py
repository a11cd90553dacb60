"""Logistic regression as the probes use it: no choice of its own, stopped alike for every backbone."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

_ITERATIONS = 300  # at most: of many frames a fit is stopped there, for every backbone alike


def logistic_scores(x: np.ndarray, y: np.ndarray, z: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """Logistic regression: [m, D], class ids [m] or 0/1 [m, classes], and [t, D] -> [t, classes].

    Where a frame has one class, every class counts the same; where it may have many, each is learnt by itself.

    Args:
        penalty: inverse (scikit-learn's C).
    """
    scores = np.zeros((len(z), classes))
    if y.ndim == 1 and len(np.unique(y)) == 1:
        scores[:, y[0]] = 1
    elif y.ndim == 1:
        fitted = fit_logistic(x, y, penalty, class_weight="balanced")
        scores[:, fitted.classes_] = fitted.predict_proba(z)
    else:
        for k in np.flatnonzero((y.min(0) == 0) & (y.max(0) == 1)):
            scores[:, k] = fit_logistic(x, y[:, k], penalty).decision_function(z)
    return scores


def fit_logistic(x: np.ndarray, y: np.ndarray, penalty: float, **options: str) -> LogisticRegression:
    """Logistic regression of class ids [m], stopped after 300 steps; `penalty` is inverse, `options` scikit-learn's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=_ITERATIONS, **options).fit(x, y)
