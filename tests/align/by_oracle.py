"""A world's pairs and flows as the oracles tell them, and how far a result is from that world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from backend.align.graph import make_pairs
from backend.align.motion import Cameras
from backend.align.predictions import PairFlows, PairPredictions
from backend.geometry.trajectory import TrajectoryError, absolute_trajectory_error
from tests.pair_oracle import Errors, FlowOracle, PairOracle
from tests.worlds import World, film, hand_held, square_intrinsics

GRAPH = "swinstride-5-noncyclic"


def still_room(frames: int = 8, width: int = 48, height: int = 32) -> World:
    """A hand-held camera in a room where nothing moves."""
    return film(hand_held(frames), square_intrinsics(0.9 * width, width, height, frames), width, height)


def predicted(world: World, errors: Errors, pairs=None) -> tuple[PairPredictions, PairFlows]:
    """What the oracles say of all pairs of a world."""
    if pairs is None:
        pairs = make_pairs(GRAPH, len(world.depth), symmetrize=True)
    return PairOracle(world, errors).predict(pairs), FlowOracle(world, errors).predict(pairs)


def true_cameras(world: World) -> Cameras:
    """The world's own cameras."""
    return Cameras(
        torch.from_numpy(np.linalg.inv(world.world_from_camera)), torch.from_numpy(world.intrinsics[:, 0].copy())
    )


def path_error(camera_from_world, world: World) -> TrajectoryError:
    """Of cameras (T, 4, 4), NaN where there is none."""
    return absolute_trajectory_error(np.linalg.inv(np.asarray(camera_from_world)), world.world_from_camera)


def depth_error(depth, world: World, where=None) -> float:
    """Mean relative error of depth (T, H, W) at one scale for all frames, `where` (T, H, W) and where there is any."""
    depth = np.asarray(depth)
    where = (depth > 0) & (True if where is None else where)
    scale = np.median(world.depth[where] / depth[where])
    return float(np.abs(depth[where] * scale / world.depth[where] - 1).mean())


def overlap(found, truth) -> float:
    """Intersection over union of two masks."""
    found, truth = np.asarray(found), np.asarray(truth)
    return float((found & truth).sum() / (found | truth).sum())


def with_garbage(predictions: PairPredictions, flows: PairFlows, frame: int) -> tuple[PairPredictions, PairFlows]:
    """The same, but every pair of one frame is random points and random flow."""
    bad = (predictions.edges == frame).any(1)
    generator = torch.Generator().manual_seed(0)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    points_i, points_j, flow = predictions.points_i.clone(), predictions.points_j.clone(), flows.flow.clone()
    for points in (points_i, points_j):
        points[bad] = 3 * noise(points[bad])
    flow[bad] = 20 * noise(flow[bad])
    return replace(predictions, points_i=points_i, points_j=points_j), replace(flows, flow=flow)
