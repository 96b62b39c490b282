"""How far predicted points of picture pairs are from the true ones: the regression criteria of pairwise networks.

As measures of a checkpoint. Facts sheet of MASt3R, section 5. Both pictures' points, (B, H, W, 3) each, are in the
camera of picture 1; `valid` says where the truth is known.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: The error that a pixel of the sky counts as, which has no true point, and the weight of log confidence in training.
SKY_ERROR, CONFIDENCE_WEIGHT = 2.0, 0.2
_LEAST = 1e-8


class Both(NamedTuple):
    """The same of both pictures of B pairs."""

    first: Tensor
    second: Tensor

    def divided(self, by: Tensor) -> Both:
        """Each pair's points divided by its own one of (B,) numbers."""
        return Both(*(points / by[:, None, None, None] for points in self))


def in_first_camera(points_world: Both, world_from_camera: Tensor) -> Both:
    """World points in the camera of picture 1, whose (B, 4, 4) poses are given."""
    camera_from_world = torch.linalg.inv(world_from_camera)
    turn, shift = camera_from_world[:, None, :3, :3], camera_from_world[:, None, None, :3, 3]
    return Both(*(points @ turn.mT + shift for points in points_world))


def relative_errors(predicted: Both, truth: Both, valid: Both, metric: Tensor | None = None) -> Both:
    """(B, H, W) distances to the truth, in mean distances of the true points from the camera.

    Predictions are first brought to the truth's mean distance, except for pairs that are `metric` (B,) bool: theirs
    must be right by themselves.
    """
    size, own = mean_distance(truth, valid), mean_distance(predicted, valid)
    if metric is not None:
        own = torch.where(metric, size, own)
    return _distances(predicted.divided(own), truth.divided(size))


def absolute_errors(predicted: Both, truth: Both, valid: Both, metric: Tensor) -> Both:
    """(B, H, W) distances to the truth as it is; predictions of pairs that are not metric have a mean distance of 1."""
    own = torch.where(metric, 1.0, mean_distance(predicted, valid))
    return _distances(predicted.divided(own), truth)


def aligned_errors(predicted: Both, truth: Both, valid: Both, shift: bool = True, scale: bool = True) -> Both:
    """(B, H, W) distances after predictions got the truth's median depth (`shift`) and its size (`scale`).

    The size is the median distance from the median point.
    """
    if shift:
        predicted, truth = (_without_median_depth(points, valid) for points in (predicted, truth))
    if scale:
        predicted = predicted.divided(_median_size(predicted, valid) / _median_size(truth, valid))
    return _distances(predicted, truth)


def with_sky(errors: Both, valid: Both, sky: Both) -> tuple[Both, Both]:
    """The errors with `SKY_ERROR` where `sky` shows and no point is known, and where they count now."""
    empty = Both(*(s & ~v for s, v in zip(sky, valid)))
    errors = Both(*(torch.where(e, SKY_ERROR, error) for e, error in zip(empty, errors)))
    return errors, Both(*(v | e for v, e in zip(valid, empty)))


def mean_of_both(values: Both, counts: Both) -> Tensor:
    """The mean where `counts` is true, of picture 1 plus that of picture 2, over all pairs."""
    return sum(value[where].mean() for value, where in zip(values, counts))


def mean_distance(points: Both, valid: Both) -> Tensor:
    """(B,) mean distance of valid points from the camera of picture 1."""
    total = sum((p.norm(dim=-1) * v).sum((1, 2)) for p, v in zip(points, valid))
    return (total / sum(v.sum((1, 2)) for v in valid)).clamp(min=_LEAST)


def _distances(a: Both, b: Both) -> Both:
    return Both(*((p - q).norm(dim=-1) for p, q in zip(a, b)))


def _valid_points(points: Both, valid: Both) -> Tensor:
    """(B, M, 3) points of both pictures, NaN where they are not valid."""
    return torch.cat([torch.where(v[..., None], p, torch.nan).flatten(1, 2) for p, v in zip(points, valid)], 1)


def _without_median_depth(points: Both, valid: Both) -> Both:
    depth = _valid_points(points, valid)[..., 2].nanmedian(1).values
    offset = torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth], -1)[:, None, None]
    return Both(*(p - offset for p in points))


def _median_size(points: Both, valid: Both) -> Tensor:
    """(B,) median distance of valid points from their median."""
    every = _valid_points(points, valid)
    middle = every.nanmedian(1, keepdim=True).values
    return (every - middle).norm(dim=-1).nanmedian(1).values.clamp(min=_LEAST)
