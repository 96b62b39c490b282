"""Errors of point maps: what each alignment forgives and what it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.evaluation.pointmaps import (
    SKY_ERROR,
    Both,
    absolute_errors,
    aligned_errors,
    in_first_camera,
    mean_distance,
    mean_of_both,
    relative_errors,
    with_sky,
)
from tests.worlds import look


@pytest.fixture
def truth() -> Both:
    points = torch.randn(2, 2, 6, 8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Both(*(points + torch.tensor([0.0, 0.0, 4.0])))


@pytest.fixture
def valid() -> Both:
    known = torch.rand(2, 2, 6, 8, generator=torch.Generator().manual_seed(2)) > 0.2
    return Both(*known)


METRIC = torch.tensor([True, False])


def times(points: Both, factor: float, shift: float = 0.0) -> Both:
    return Both(*(factor * p + torch.tensor([0.0, 0.0, shift]) for p in points))


def test_a_scale_is_forgiven_but_to_metric_pairs(truth, valid):
    doubled = times(truth, 2.0)
    for errors in relative_errors(doubled, truth, valid):
        assert errors.max() < 1e-12
    first, second = relative_errors(doubled, truth, valid, METRIC)
    size = mean_distance(truth, valid)
    torch.testing.assert_close(first[0], truth.first[0].norm(dim=-1) / size[0])
    assert first[1].max() < 1e-12
    assert second[1].max() < 1e-12
    assert mean_of_both(Both(first[:1], second[:1]), Both(valid.first[:1], valid.second[:1])) == pytest.approx(
        2, rel=0.1
    )


def test_absolute_errors_are_metres(truth, valid):
    first, _ = absolute_errors(times(truth, 1.0, shift=0.3), truth, valid, METRIC)
    torch.testing.assert_close(first[0], torch.full((6, 8), 0.3, dtype=torch.float64))
    assert first[1].mean() > 2  # of a pair without metres a mean distance of 1 is meant


def test_shift_and_scale_are_forgiven_each_by_itself(truth, valid):
    moved = times(truth, 3.0, shift=5.0)
    assert aligned_errors(moved, truth, valid).first.max() < 1e-12
    assert aligned_errors(times(truth, 1.0, 5.0), truth, valid, scale=False).second.max() < 1e-12
    assert aligned_errors(times(truth, 3.0), truth, valid, shift=False).first.max() < 1e-12
    assert aligned_errors(moved, truth, valid, shift=False).first.mean() > 1
    assert aligned_errors(moved, truth, valid, scale=False).first.mean() > 1


def test_what_is_not_valid_does_not_tell_the_scale(truth, valid):
    spoiled = Both(*(torch.where(v[..., None], p, 1e6) for p, v in zip(truth, valid)))
    for align in (relative_errors, aligned_errors):
        for errors, known in zip(align(times(spoiled, 2.0), truth, valid), valid):
            assert errors[known].max() < 1e-9


def test_the_sky_has_an_error_of_its_own(truth, valid):
    sky = Both(*(torch.ones_like(v) for v in valid))
    errors, counts = with_sky(relative_errors(truth, truth, valid), valid, sky)
    for error, count, known in zip(errors, counts, valid):
        assert count.all()
        assert (error[~known] == SKY_ERROR).all()
        assert error[known].max() < 1e-12  # a known point in front of the sky stays one


def test_points_come_into_the_first_camera(truth):
    poses = torch.from_numpy(np.stack([look(0.3, 0.1, -0.2, (1.0, 2.0, 3.0)), look(-1.0, 0.2, 0.0, (0.0, 0.5, -4.0))]))
    world = Both(*(torch.einsum("bij,bhwj->bhwi", poses[:, :3, :3], p) + poses[:, None, None, :3, 3] for p in truth))
    for back, points in zip(in_first_camera(world, poses), truth):
        torch.testing.assert_close(back, points)
