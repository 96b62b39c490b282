"""Which frames of a set look alike, by their local features: a network's encoder tokens, or any other descriptors.

`token_likeness` is ours and learns all it needs from the set. `Codebook` is the original's (MASt3R-SfM), which needs
its published files; specs/mast3r.md section 3.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Strongest features of a picture that are compared.
STRONGEST = 300
#: Words of the codebook that a feature of the asking picture counts for; one of a picture asked about counts for one.
_QUERY_WORDS = 5
#: Likeness falls with this power of the cosine.
_POWER = 3
#: Directions that a whitening learned from a set keeps, and the least share of the largest variance among them.
_DIRECTIONS, _LEAST_VARIANCE = 256, 1e-6


@dataclass(frozen=True)
class Whitening:
    """Features less `mean` (D,), times `matrix` (D, K): of equal variance in every direction. Both in float64."""

    mean: Tensor
    matrix: Tensor

    @classmethod
    def learned(cls, features: Sequence[Tensor], directions: int = _DIRECTIONS) -> Whitening:
        """From the features (M, D) of some pictures: the `directions` of largest variance, as many as there are."""
        count = sum(len(f) for f in features)
        mean = sum(f.double().sum(0) for f in features) / count
        covariance = sum((f.double() - mean).T @ (f.double() - mean) for f in features) / count
        variance, axes = torch.linalg.eigh(covariance)
        keep = variance > _LEAST_VARIANCE * variance[-1]
        return cls(mean, (axes[:, keep] / variance[keep].sqrt())[:, -directions:].flip(1))

    def __call__(self, features: Tensor) -> Tensor:
        """(..., K) float32 of (..., D)."""
        return ((features.to(self.matrix) - self.mean) @ self.matrix).float()


def strongest(features: Tensor, count: int = STRONGEST) -> tuple[Tensor, Tensor]:
    """The `count` longest of (M, D) whitened features, longest first, and where they stood: what is rare is long."""
    order = torch.linalg.vector_norm(features, dim=-1).argsort(descending=True, stable=True)[:count]
    return features[order], order


def pooled(features: Tensor) -> Tensor:
    """(..., D) of unit length: the sum of whitened features (..., M, D), each weighted by its own length."""
    total = (features * torch.linalg.vector_norm(features, dim=-1, keepdim=True)).sum(-2)
    return torch.nn.functional.normalize(total, dim=-1)


def token_likeness(features: Sequence[Tensor], count: int = STRONGEST) -> np.ndarray:
    """(N, N) symmetric likeness of N pictures by their features (M, D) each, 0 to 1, 1 on the diagonal.

    Features are whitened by what the set itself is like. Two pictures are as like as one's `count` strongest features
    find their likes among the other's: the mean third power of the best cosine. One without features is like none.
    """
    if not any(len(f) for f in features):
        return np.eye(len(features))
    whiten = Whitening.learned([f for f in features if len(f)])
    chosen = [torch.nn.functional.normalize(strongest(whiten(f), count)[0], dim=-1) for f in features]
    sizes = [len(c) for c in chosen]
    every = torch.cat(chosen)
    found = np.eye(len(features))
    for n, own in enumerate(chosen):
        if not len(own):
            continue
        parts = (own @ every.T).split(sizes, dim=1)
        best = [part.amax(1) if part.shape[1] else part.new_zeros(len(own)) for part in parts]
        found[n] = torch.stack(best, 1).clamp(0, 1).pow(_POWER).mean(0).cpu().numpy()
    found = (found + found.T) / 2
    np.fill_diagonal(found, 1)
    return found


@dataclass(frozen=True)
class Codebook:
    """A whitening and a vocabulary `words` (K, D) of what it makes, as the original publishes them."""

    whiten: Whitening
    words: Tensor

    def likeness(self, features: Sequence[Tensor], count: int = STRONGEST) -> np.ndarray:
        """(N, N) likeness of N pictures by their features (M, D), symmetric; a picture's to itself is below 1."""
        scores = asmk_scores([strongest(self.whiten(f), count)[0] for f in features], self.words)
        return (scores + scores.T) / 2


def asmk_scores(features: Sequence[Tensor], words: Tensor) -> np.ndarray:
    """(asking, asked) scores of N pictures by their features (M, D) and `words` (K, D).

    Aggregated selective match kernels (Tolias et al. 2013), binary: of each word the sign of the sum of its features'
    differences from it; likeness of signs to the third power, where above 0, over the pictures' numbers of words.
    """
    features = [f.to(words) for f in features]
    nearest = [(f @ words.T - 0.5 * (words**2).sum(1)).topk(min(_QUERY_WORDS, len(words))).indices for f in features]
    asked = [_aggregated(f, words, near[:, :1]) for f, near in zip(features, nearest)]
    number = torch.cat([w for w, _ in asked])
    signs = torch.cat([s for _, s in asked])
    count = torch.tensor([len(w) for w, _ in asked], device=words.device)
    picture = torch.arange(len(asked), device=words.device).repeat_interleave(count)
    scores = torch.zeros(len(asked), len(asked), dtype=torch.float64, device=words.device)
    for n, each in enumerate(features):
        own, own_signs = _aggregated(each, words, nearest[n])
        row = torch.full((len(words),), -1, device=words.device)
        row[own] = torch.arange(len(own), device=words.device)
        both = torch.nonzero(row[number] >= 0)[:, 0]
        like = (own_signs[row[number[both]]] * signs[both]).float().mean(1).double().clamp(min=0) ** _POWER
        scores[n].index_add_(0, picture[both], like)
        scores[n] /= (len(own) * count).clamp(min=1).sqrt()
    return scores.cpu().numpy()


def _aggregated(features: Tensor, words: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """The words (U,) among the `nearest` (M, n) of the features (M, D), and the signs (U, D) int8 of their sums."""
    used, place = nearest.unique(return_inverse=True)
    total = torch.zeros(len(used), words.shape[1], dtype=words.dtype, device=words.device)
    for each, at in zip(nearest.T, place.T):
        total.index_add_(0, at, features - words[each])
    return used, total.sign().to(torch.int8)
