"""Conformance of global alignment: pair solver, motion masks, start, loss, first steps, cleaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.align.losses import AlignmentState, alignment_loss
from backend.align.original import align_as_original, clean_confidence
from backend.align.original_motion import MOTION_THRESHOLD, motion_error, pair_ego_flow, solve_pairs
from backend.align.original_start import BASE_SCALE, spanning_tree_start
from backend.align.original_views import frame_confidence
from backend.geometry.rigid import quaternions_from_matrices

from .recorded import Recorded, recorded_runs, recorded_state
from .rows import Arrays, Row, absent, count, guarded, near, unchecked

TOLERANCE = 1e-4
#: Steps of Adam that are compared at most: a little beyond the first with flow. Later, rounding has changed the path.
STEPS = 40
STEPS_TOLERANCE = 1e-3
#: Share of pixels whose projection may round to another one.
CLEANED_SHARE = 2e-4
#: Beginnings of the names of arrays that the checks below look at.
COMPARED = ("pairviewer_", "motion_error_mean", "dynamic_mask", "init_", "loss_curve", "final_", "im_conf", "tum")


def each_run(part: str, rows: Callable[[Recorded], Iterable[Row]]) -> Callable[[Path], Iterator[Row]]:
    """A check of a folder out of a check of one run."""

    def check(folder: Path) -> Iterator[Row]:
        runs = recorded_runs(folder)
        if not runs:
            yield absent(part)
        for run in runs:
            yield from guarded(f"{part} {run.answer.label}", partial(rows, run))

    return check


def pair_solver(run: Recorded) -> Iterator[Row]:
    """Poses and lenses of two views on their own, ego-flow, motion error, motion mask."""
    arrays = run.answer
    solved = [f"pairviewer_{part}_{view}" for view in "ij" for part in "RTK"]
    if any(name in arrays for name in (*solved, "pairviewer_egoflow_ij_first")):
        pairs = solve_pairs(run.predictions)
        half = len(pairs.edges)
        yield near(f"{arrays.label} pairviewer edges", pairs.edges, run.scene["edges"][:half], 0)
        for view in "ij":
            pose, focal = getattr(pairs, f"world_from_{view}"), getattr(pairs, f"focal_{view}")
            ours = (pose[:, :3, :3], pose[:, :3, 3:], intrinsics(focal, run.predictions.size))
            for part, value in zip("RTK", ours):
                yield arrays.near(f"pairviewer_{part}_{view}", value, TOLERANCE, relative=True)
        if "pairviewer_egoflow_ij_first" in arrays:
            first = len(arrays["pairviewer_egoflow_ij_first"])
            ego_flow = pair_ego_flow(pairs)[0][:first]
            yield arrays.near("pairviewer_egoflow_ij_first", ego_flow, TOLERANCE, relative=True)
    else:
        yield absent(f"{arrays.label} pairviewer")
    if not any(name in arrays for name in ("motion_error_mean", "dynamic_mask")):
        return
    if run.flows is None:
        yield unchecked(f"{arrays.label} motion_error_mean", "no flow is stored")
        return
    error = motion_error(run.predictions, run.flows)
    yield arrays.near("motion_error_mean", error, TOLERANCE)
    if "dynamic_mask" in arrays and not run.true_masks:
        threshold = run.settings.motion_threshold if run.settings else MOTION_THRESHOLD
        # A pixel on the very threshold may fall to either side.
        clear = (error - threshold).abs() > TOLERANCE
        differing = ((error > threshold) != torch.from_numpy(arrays["dynamic_mask"])) & clear
        yield count(f"{arrays.label} dynamic_mask", differing.nonzero().tolist(), differing.numel(), of="pixels")


def initialisation(run: Recorded) -> Iterator[Row]:
    """Cameras, lens, depth and places of pairs before the first step."""
    arrays = run.answer
    if not any(name.startswith("init_") for name in arrays):
        yield absent(f"{arrays.label} initialisation")
        return
    start = spanning_tree_start(run.predictions, run.settings.shared_focal if run.settings else True)
    state = start.state
    yield arrays.near("init_poses", state.world_from_camera, TOLERANCE, relative=True)
    yield arrays.near("init_focals", state.focal_px, TOLERANCE, relative=True)
    if "init_depth" in arrays:
        yield arrays.near("init_depth", state.depth, TOLERANCE, relative=True)
    if "init_pw_poses" in arrays:
        yield arrays.near("init_pw_poses", pair_matrices(state), TOLERANCE, relative=True)
    if "init_pw_params" in arrays:
        theirs = arrays["init_pw_params"]
        turn = quaternions_from_matrices(state.pair_rotation.numpy())
        turn *= np.sign((turn * theirs[:, :4]).sum(1, keepdims=True))
        shift = state.pair_translation.numpy()
        yield near(f"{arrays.label} init_pw_params turn", turn, unit(theirs[:, :4]), TOLERANCE)
        yield near(
            f"{arrays.label} init_pw_params shift", np.sign(shift) * np.log1p(abs(shift)), theirs[:, 4:7], TOLERANCE
        )
        # Only the scales' ratios mean anything: the mean is taken off on use.
        ours, stored = state.pair_scale.log().numpy(), theirs[:, 7]
        yield near(f"{arrays.label} init_pw_params scale", ours - ours.mean(), stored - stored.mean(), TOLERANCE)


def losses(run: Recorded) -> Iterator[Row]:
    """The loss at our start, and at the recorded start and end where their arrays suffice."""
    arrays, settings = run.answer, run.settings
    if settings is None:
        yield unchecked(f"{arrays.label} losses", "metrics.json does not say how it was run, or names another method")
        return
    if not any(name.startswith(("init_loss", "final_", "loss_curve")) for name in arrays):
        yield absent(f"{arrays.label} losses")
        return
    no_flow = replace(settings.loss, flow_weight=0.0)
    dynamic = run.dynamic()
    ours = spanning_tree_start(run.predictions, settings.shared_focal).state
    states = {"ours": ours, "init": recorded_state(arrays, "init"), "final": recorded_state(arrays, "final")}

    def value(state: AlignmentState, with_flow: bool) -> tuple[float, float]:
        if not with_flow:
            return alignment_loss(state, run.predictions, settings=no_flow).total.item(), 0.0
        loss = alignment_loss(state, run.predictions, run.flows, dynamic, settings=settings.loss)
        return loss.total.item(), loss.flow.item()

    flows_there = run.flows is not None and dynamic is not None
    for origin in ("ours", "init"):
        state, label = states[origin], f"{arrays.label} at {'our' if origin == 'ours' else 'their'} start:"
        if state is None:
            continue
        if "init_loss_noflow" in arrays:
            theirs = arrays["init_loss_noflow"]
            yield _loss_row(f"{label} init_loss_noflow", value(state, False)[0], theirs)
        if "init_loss_withflow" in arrays and flows_there:
            theirs = arrays["init_loss_withflow"]
            yield _loss_row(f"{label} init_loss_withflow", value(state, True), theirs)
        if "loss_curve" in arrays and settings.flow_start > 0:
            yield _loss_row(f"{label} loss_curve[0]", value(state, False), arrays["loss_curve"][0, :2])
    if "final_loss" not in arrays:
        yield absent(f"{arrays.label} final_loss")
    elif states["final"] is None:
        yield unchecked(f"{arrays.label} final_loss", "depth or pairs of the end are not stored")
    elif settings.loss.flow_weight and not flows_there:
        yield unchecked(f"{arrays.label} final_loss", "no flow is stored")
    else:
        theirs = arrays["final_loss"]
        yield _loss_row(f"{arrays.label} final_loss", value(states["final"], settings.loss.flow_weight > 0), theirs)
    if arrays.has("final_K", "final_focals"):
        ours_k = intrinsics(torch.from_numpy(arrays["final_focals"]), run.predictions.size)
        yield arrays.near("final_K", ours_k, TOLERANCE, relative=True)
    if "final_pw_scale" in arrays:
        mean = np.exp(np.log(arrays["final_pw_scale"].astype(float)).mean())
        yield near(f"{arrays.label} final_pw_scale, its mean", mean, BASE_SCALE, TOLERANCE)
        if states["final"] is not None:
            yield arrays.near("final_pw_scale", states["final"].pair_scale, TOLERANCE, relative=True)
    if arrays.has("tum", "final_poses"):
        yield _trajectory_row(arrays)


def _loss_row(name: str, ours: float | tuple[float, float], theirs: np.ndarray) -> Row:
    """Relative; a flow part near 0 counts as it stands beside a hundredth of the total."""
    ours, theirs = np.atleast_1d(np.asarray(ours)), np.atleast_1d(theirs)
    scale = np.maximum(np.abs(theirs), 1e-2 * np.abs(theirs[0]))
    return near(name, ours / scale, theirs / scale, TOLERANCE)


def _trajectory_row(arrays: Arrays) -> Row:
    """Their file of poses: time, position, quaternion w first."""
    poses, tum = arrays["final_poses"].astype(float), arrays["tum"]
    turn = np.roll(quaternions_from_matrices(poses[:, :3, :3]), 1, axis=1)
    turn *= np.sign((turn * tum[:, 4:]).sum(1, keepdims=True))
    ours = np.column_stack([np.arange(len(poses)), poses[:, :3, 3], turn])
    return near(f"{arrays.label} tum", ours, tum, TOLERANCE, relative=True)


def first_steps(run: Recorded) -> Iterator[Row]:
    """Adam's first steps: total, flow term and learning rate before each."""
    arrays, settings = run.answer, run.settings
    if "loss_curve" not in arrays:
        yield absent(f"{arrays.label} loss_curve")
        return
    if settings is None or (settings.loss.flow_weight and run.flows is None):
        yield unchecked(f"{arrays.label} loss_curve", "its settings or its flow are not stored")
        return
    theirs = arrays["loss_curve"]
    settings = replace(settings, iterations=len(theirs))
    steps = min(STEPS, len(theirs), int(np.ceil(settings.flow_start * len(theirs))) + 3)
    result = align_as_original(run.predictions, run.flows, settings, dynamic=run.dynamic(), stop_after=steps)
    ours = result.loss_curve[:steps].numpy()
    label = f"{arrays.label} loss_curve[:{steps}]"
    for column, part in enumerate(("total", "flow", "lr")):
        scale = max(np.abs(theirs[:steps, column]).max(), 1e-12)
        yield near(f"{label} {part}", ours[:, column] / scale, theirs[:steps, column] / scale, STEPS_TOLERANCE)


def cleaning(run: Recorded) -> Iterator[Row]:
    """Confidence of frames, before and after points that hang in front of surer surfaces are taken out."""
    arrays = run.answer
    if "im_conf" not in arrays:
        yield absent(f"{arrays.label} im_conf")
        return
    confidence = frame_confidence(run.predictions, int(run.predictions.edges.max()) + 1)
    yield arrays.near("im_conf", confidence, TOLERANCE, relative=True)
    state = recorded_state(arrays, "final")
    if "im_conf_cleaned" not in arrays or state is None:
        yield absent(f"{arrays.label} im_conf_cleaned, or the state it belongs to")
        return
    theirs = arrays["im_conf_cleaned"]
    differing = np.argwhere(np.abs(clean_confidence(state, confidence).numpy() - theirs) > TOLERANCE)
    limit = int(CLEANED_SHARE * theirs.size)
    yield count(f"{arrays.label} im_conf_cleaned", differing.tolist(), theirs.size, limit, of="pixels")


def others(run: Recorded) -> Iterator[Row]:
    """Arrays that no other check looks at."""
    for name in run.answer:
        if not name.startswith(COMPARED):
            yield unchecked(f"{run.answer.label} {name}", "nothing here answers to it")


def pair_matrices(state: AlignmentState) -> Tensor:
    """(E, 4, 4) with the scale multiplied in, as the original hands them out."""
    matrices = torch.eye(4).repeat(len(state.pair_scale), 1, 1)
    matrices[:, :3, :3] = state.pair_scale[:, None, None] * state.pair_rotation
    matrices[:, :3, 3] = state.pair_scale[:, None] * state.pair_translation
    return matrices


def intrinsics(focal_px: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 3, 3) with the principal point at (W/2, H/2)."""
    k = torch.eye(3).repeat(len(focal_px), 1, 1)
    k[:, 0, 0] = k[:, 1, 1] = focal_px
    k[:, :2, 2] = torch.tensor(size) / 2
    return k


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
