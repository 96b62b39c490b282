"""Likeness of pictures: the same place is found, by what a set says of itself and by a codebook."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.localise.classic import features_of
from backend.sparse.graph import set_pairs
from backend.sparse.retrieval import Codebook, Whitening, asmk_scores, pooled, strongest, token_likeness
from tests.worlds import film, look, square_intrinsics

PLACES, EACH = 3, 4


@pytest.fixture(scope="module")
def features() -> list[torch.Tensor]:
    """Descriptors of 12 pictures: four from about one place each of the far wall, the left one and the right one."""
    rng = np.random.default_rng(3)
    cameras = [
        look(yaw + rng.normal(0, 0.06), rng.normal(0, 0.04), rng.normal(0, 0.03), rng.normal(0, 0.15, 3))
        for yaw in (0.0, -1.5, 1.5)
        for _ in range(EACH)
    ]
    rgb = film(np.stack(cameras), square_intrinsics(150, 192, 144, len(cameras)), 192, 144).rgb
    return [torch.from_numpy(features_of(each).descriptors) for each in rgb]


def place(n: int) -> int:
    return n // EACH


def assert_same_places_are_alike(likeness: np.ndarray) -> None:
    apart = np.equal.outer(*[np.arange(len(likeness)) // EACH] * 2)
    itself = np.eye(len(likeness), dtype=bool)
    assert likeness[apart & ~itself].min() > 2 * likeness[~apart].max()


def test_pictures_of_one_place_are_alike(features):
    found = token_likeness(features)
    assert_same_places_are_alike(found)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), 1)
    assert found.min() >= 0


def test_the_graph_by_likeness_joins_places_once_and_their_pictures_among_themselves(features):
    pairs = set_pairs(f"retrieval-{PLACES}-2", len(features), likeness=token_likeness(features), seed=1)
    across = [(i, j) for i, j in pairs if place(i) != place(j)]
    assert sorted((place(i), place(j)) for i, j in across) == [(0, 1), (0, 2), (1, 2)]  # the key frames alone
    assert len(pairs) - len(across) >= PLACES * (EACH - 1)


def test_a_codebook_finds_the_same_places(features):
    whiten = Whitening.learned(features, 64)
    white = [whiten(f) for f in features]
    generator = torch.Generator().manual_seed(0)
    every = torch.cat(white)
    words = every[torch.randperm(len(every), generator=generator)[:1000]]
    assert_same_places_are_alike(Codebook(whiten, words).likeness(features))


def test_words_are_compared_by_the_signs_of_what_differs_from_them():
    """Of two words, pictures 0 and 1 differ from the first alike, and picture 2 the opposite way; 3 has the second."""
    words = torch.tensor([[10.0, 0, 0, 0], [0, 10.0, 0, 0]])
    off = torch.tensor([0.1, 0.2, -0.3, 0.1])
    features = [(words[0] + off)[None], (words[0] + 2 * off)[None], (words[0] - off)[None], (words[1] + off)[None]]
    scores = asmk_scores(features, words)
    # the asking picture counts for both words, the one asked for one: (1 + ...) / sqrt(2 * 1)
    assert scores[0, :3] == pytest.approx([2**-0.5, 2**-0.5, 0])
    half = asmk_scores([features[0], (words[0] + off * torch.tensor([1, 1, 1, -1]))[None]], words)
    assert half[0, 1] == pytest.approx(0.5**3 / 2**0.5)


def test_whitening_learned_from_a_set_makes_all_directions_alike():
    rng = np.random.default_rng(0)
    mix, middle = rng.normal(size=(6, 6)), rng.normal(size=6)
    parts = [torch.from_numpy(rng.normal(size=(n, 6)) @ mix + middle) for n in (150, 350)]
    white = torch.cat([Whitening.learned(parts)(p) for p in parts]).double()
    torch.testing.assert_close(white.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(white.T @ white / 500, torch.eye(6, dtype=torch.float64), atol=1e-5, rtol=0)


def test_directions_without_variance_are_left_out():
    flat = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 0, 0, 1], [0, 2, 0, 0], [0, 0, 3, 0]]
    )
    white = Whitening.learned([flat])(flat)
    assert white.shape == (50, 3)
    assert torch.isfinite(white).all()
    assert Whitening.learned([flat], directions=2)(flat).shape == (50, 2)


def test_the_longest_features_come_first_and_weigh_most():
    features = torch.tensor([[1.0, 0], [0, 3], [-2, 0], [0, 0.5]])
    chosen, at = strongest(features, 2)
    assert at.tolist() == [1, 2]
    assert chosen.tolist() == [[0, 3], [-2, 0]]
    total = torch.tensor([1.0 - 4, 9 + 0.25])
    torch.testing.assert_close(pooled(features), total / total.norm())


def test_pictures_without_features_are_like_none():
    some = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    none = torch.zeros(0, 8)
    found = token_likeness([some, none, some])
    assert found[0, 2] == pytest.approx(1)
    assert found[1].tolist() == [0, 1, 0]
    assert token_likeness([none, none]).tolist() == [[1, 0], [0, 1]]
