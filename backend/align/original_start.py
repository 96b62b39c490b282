"""The original's first alignment: clouds registered along the maximum spanning tree of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import roma
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from ..wire import UserError
from .losses import AlignmentState, transform_points
from .original_views import PNP_CONFIDENCE, edge_scores, frame_confidence, pose_from_points, weiszfeld_focal
from .predictions import PairPredictions

_PNP_ITERATIONS = 10
#: The mean size of a pair in the world, which fixes the free scale of it all (facts sheet, section 8.1).
BASE_SCALE = 0.5


@dataclass(frozen=True)
class Start:
    """The state to start from, with each frame's own focal length (T,) before they are made one.

    `guessed` lists frames whose camera PnP did not find: the original puts them at the identity.
    """

    state: AlignmentState
    own_focal_px: Tensor
    guessed: tuple[int, ...]


def spanning_tree_start(predictions: PairPredictions, shared_focal: bool = True) -> Start:
    """Section 8.2 of the facts sheet, quirks included. Raises UserError for frames that no chain of pairs connects."""
    edges = [(i, j) for i, j in predictions.edges.tolist()]
    frame_count = max(map(max, edges)) + 1
    scores = edge_scores(predictions)
    points, poses, focals = _along_the_tree(predictions, scores, frame_count)
    for t in range(frame_count):
        if focals[t] is None:
            starting = [e for e, (i, _) in enumerate(edges) if i == t]
            if not starting:
                raise UserError(f"No pair begins at frame {t}", "choose a scene graph that is symmetrised")
            focals[t] = _focal(predictions, max(starting, key=lambda e: scores[e].item()))
    confidence = frame_confidence(predictions, frame_count)
    guessed = []
    for t in range(frame_count):
        if poses[t] is None:
            poses[t] = pose_from_points(points[t], focals[t], confidence[t] > PNP_CONFIDENCE, _PNP_ITERATIONS)
        if poses[t] is None:
            guessed.append(t)
            poses[t] = torch.eye(4)

    cloud = torch.stack(points)
    camera = torch.stack([pose.to(cloud) for pose in poses])
    found = [
        _similarity(predictions.points_i[e], cloud[i], predictions.confidence_i[e]) for e, (i, _) in enumerate(edges)
    ]
    log_scale = torch.stack([scale.log() for scale, _, _ in found])
    normaliser = BASE_SCALE * torch.exp(-log_scale.mean())
    cloud, camera = cloud * normaliser, camera.clone()
    camera[:, :3, 3] *= normaliser
    log_depth = transform_points(torch.linalg.inv(camera), cloud)[..., 2].log()
    log_depth = torch.where(torch.isnan(log_depth) | torch.isneginf(log_depth), 0.0, log_depth)
    own_focal = cloud.new_tensor(focals)
    state = AlignmentState(
        depth=log_depth.exp(),
        world_from_camera=camera,
        focal_px=own_focal.mean().expand(frame_count).clone() if shared_focal else own_focal,
        pair_scale=normaliser * log_scale.exp(),
        pair_rotation=torch.stack([rotation for _, rotation, _ in found]),
        pair_translation=torch.stack([shift / scale for scale, _, shift in found]),
    )
    return Start(state, own_focal, tuple(guessed))


def _along_the_tree(
    predictions: PairPredictions, scores: Tensor, frame_count: int
) -> tuple[list[Tensor], list[Tensor | None], list[float | None]]:
    """Points of every frame in one world, and the poses and focal lengths that come with them."""
    place = {(i, j): e for e, (i, j) in enumerate(predictions.edges.tolist())}
    todo = _spanning_tree(place, scores, frame_count)
    points: list[Tensor | None] = [None] * frame_count
    poses: list[Tensor | None] = [None] * frame_count
    focals: list[float | None] = [None] * frame_count

    last = place[todo.pop(0)]
    i, j = predictions.edges[last].tolist()
    points[i], points[j] = predictions.points_i[last], predictions.points_j[last]
    poses[i], focals[i] = torch.eye(4).to(points[i]), _focal(predictions, last)
    while todo:
        i, j = todo.pop(0)
        if focals[i] is None:
            focals[i] = _focal(predictions, last)  # the original's slip: the pair before this one
        if points[i] is None and points[j] is None:
            todo.append((i, j))
            continue
        last = e = place[i, j]
        if points[i] is not None:
            source, target, weight = predictions.points_i[e], points[i], predictions.confidence_i[e]
        else:
            source, target, weight = predictions.points_j[e], points[j], predictions.confidence_j[e]
        scale, rotation, shift = _similarity(source, target, weight)
        if points[i] is not None:
            points[j] = scale * predictions.points_j[e] @ rotation.T + shift
        else:
            points[i] = scale * predictions.points_i[e] @ rotation.T + shift
        if poses[i] is None:
            poses[i] = torch.eye(4).to(shift)
            poses[i][:3, :3], poses[i][:3, 3] = rotation, shift
    return points, poses, focals  # type: ignore[return-value] - a spanning tree reaches every frame


def _spanning_tree(place: dict[tuple[int, int], int], scores: Tensor, frame_count: int) -> list[tuple[int, int]]:
    """Its pairs, the strongest first, each in its stronger direction."""
    pairs = [pair for pair in place if pair[0] != pair[1]]
    weights = np.array([-scores[place[pair]].item() for pair in pairs])
    rows, columns = np.array(pairs).T
    tree = minimum_spanning_tree(csr_array((weights, (rows, columns)), shape=(frame_count, frame_count))).tocoo()
    if tree.nnz != frame_count - 1:
        raise UserError("Some frames are not connected to the others by any pair", "choose a wider scene graph")
    order = np.argsort(tree.data, kind="stable")
    return [(int(tree.row[k]), int(tree.col[k])) for k in order]


def _focal(predictions: PairPredictions, edge: int) -> float:
    return weiszfeld_focal(predictions.points_i[edge : edge + 1]).item()


def _similarity(source: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, (3, 3) rotation and (3,) shift: target = scale * rotation @ source + shift, weighted least squares."""
    rotation, shift, scale = roma.rigid_points_registration(
        source.reshape(-1, 3), target.reshape(-1, 3), weights=weight.reshape(-1), compute_scaling=True
    )
    return scale, rotation, shift
