"""Which frames of a capture look like a frame of the plate, by the features in them and without any weights.

Features are told apart by the words of a small vocabulary learned from the capture itself; a picture is the sum of its
features' differences from their words (VLAD, Jegou et al. 2010, with the normalisation of Arandjelovic and Zisserman
2013), and alike is what has a large product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from .classic import Features

#: Words of the vocabulary, features that it is learned from, and rounds of that.
WORDS, LEARN_FROM, ROUNDS = 64, 20_000, 8


class Likeness:
    """How much frames of a capture, given by their features, look like others. `seed` decides where learning begins."""

    def __init__(self, views: Sequence[Features], seed: int) -> None:
        rng = np.random.default_rng(seed)
        each = max(1, LEARN_FROM // max(1, len(views)))
        some = [f.descriptors[rng.permutation(len(f.descriptors))[:each]] for f in views]
        self._words = _words(np.concatenate(some), rng)
        self._views = np.stack([self._sum(f) for f in views])

    def to(self, features: Features) -> np.ndarray:
        """(K,) likeness of every view to a picture with these features, -1 to 1."""
        return self._views @ self._sum(features)

    def _sum(self, features: Features) -> np.ndarray:
        count, width = self._words.shape
        total = np.zeros((count, width), np.float32)
        if len(features.descriptors):
            word = (features.descriptors @ self._words.T - 0.5 * (self._words**2).sum(axis=1)).argmax(axis=1)
            total += _summed(features.descriptors - self._words[word], word, count)
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
        flat = total.ravel()
        return flat / max(float(np.linalg.norm(flat)), 1e-9)


def _words(descriptors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(W, D) centres of (N, D) descriptors by k-means."""
    if not len(descriptors):
        return np.zeros((1, descriptors.shape[1]), np.float32)
    words = descriptors[rng.permutation(len(descriptors))[:WORDS]]
    for _ in range(ROUNDS):
        nearest = (descriptors @ words.T - 0.5 * (words**2).sum(axis=1)).argmax(axis=1)
        count = np.bincount(nearest, minlength=len(words))
        mean = _summed(descriptors, nearest, len(words)) / np.maximum(count, 1)[:, None]
        words = np.where(count[:, None] > 0, mean, words)
    return words


def _summed(rows: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """(count, D) float32 sums of the (N, D) rows of each group."""
    of = csr_array((np.ones(len(rows), np.float32), (group, np.arange(len(rows)))), shape=(count, len(rows)))
    return (of @ rows).astype(np.float32)
