"""The criteria of matching networks as measures: right where everything is right, and known values in between."""

from __future__ import annotations

import math

import pytest
import torch

from backend.evaluation.matching import (
    at_pixels,
    average_precision,
    dual_surprise,
    surprise,
    surprise_among_all,
    unmatched,
    weighed,
)


def unit_vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_distinct_descriptors_are_no_surprise():
    right = torch.eye(12)[None]
    assert surprise(right, right).max() < 1e-6
    assert dual_surprise(right, right).max() < 1e-6
    assert (average_precision(right, right) == 1).all()


def test_equal_descriptors_are_a_guess():
    """Of N answers that are all alike, each has a share of 1 / N."""
    same = torch.ones(2, 10, 4) / 2
    torch.testing.assert_close(surprise(same, same), torch.full((2, 10), 2 * math.log(10)))
    torch.testing.assert_close(dual_surprise(same, same), torch.full((2, 10), 2 * math.log(10)))
    torch.testing.assert_close(surprise_among_all(same, same), torch.full((2, 10), math.log(100)))


def test_swapped_answers_are_a_great_surprise_but_a_finite_one():
    right = torch.eye(2)[None]
    assert surprise(right, right.flip(1), 0.01).tolist() == [[pytest.approx(2 * math.log(1e8))] * 2]
    assert dual_surprise(right, right.flip(1), 0.01).tolist() == [[pytest.approx(math.log(1e8))] * 2]
    assert average_precision(right, right.flip(1)).tolist() == [[0.5, 0.5]]


def test_a_colder_temperature_asks_for_more():
    one = unit_vectors(1, 30, 8)
    two = torch.nn.functional.normalize(one + 0.3 * unit_vectors(1, 30, 8, seed=1), dim=-1)
    assert surprise(one, two, 0.05).mean() < surprise(one, two, 0.5).mean()
    torch.testing.assert_close(surprise(one, two), surprise(two, one))


def test_precision_is_one_over_the_place():
    question = torch.tensor([[[1.0, 0.0]]])
    answers = torch.tensor([[[0.6, 0.8], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]]])  # the right one is third
    assert average_precision(question, answers).item() == pytest.approx(1 / 3)
    torch.testing.assert_close(average_precision(question, answers[:, :1]), torch.ones(1, 1))


def test_values_are_taken_at_x_and_y():
    maps = torch.arange(2 * 3 * 5).view(2, 3, 5)
    assert at_pixels(maps, torch.tensor([[[4, 0]], [[1, 2]]])).tolist() == [[4], [26]]


def test_unmatched_pixels_are_the_first_that_no_match_ends_at():
    descriptors = torch.arange(2 * 4.0).view(2, 2, 2, 1)
    xy = torch.tensor([[[0, 0], [0, 0]], [[1, 0], [0, 1]]])
    assert unmatched(descriptors, xy, 2)[..., 0].tolist() == [[1.0, 2.0], [4.0, 7.0]]
    with pytest.raises(ValueError, match="fewer than 3 pixels"):
        unmatched(descriptors, xy, 3)


def test_the_best_confidence_is_the_weight_over_the_error():
    error = torch.tensor([0.5, 2.0])
    best = weighed(error, 10 / error, 10)
    assert (best < weighed(error, 9 / error, 10)).all()
    assert (best < weighed(error, 11 / error, 10)).all()
