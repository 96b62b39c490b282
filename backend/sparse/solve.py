"""The solver of a sparse alignment: cameras, lenses, sizes and depths by damped Gauss-Newton on matched pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..geometry.rigid import Similarity, mean_rotation, poses_from
from .first_cameras import LEAST_MATCHES, LEAST_SHARE, FirstCameras, first_cameras
from .observations import Observations, observe
from .problem import SparseProblem
from .reduced import Held, Layout, Noise, State, cost, normal_equations, views
from .unknowns import Unknowns

#: `locked`: all focal lengths are given; `shared`: frames whose lens is not given have one; `each`: one each.
Lens = Literal["locked", "shared", "each"]

#: Rounds with the noise measured anew, steps at most in one, and the relative gain below which a round ends.
ROUNDS, STEPS, ENOUGH = 3, 10, 1e-6
#: A match counts half when it misses by the noise times this.
LOOSE = 2.0
#: The least noise: of a match in px (pixels are whole ones), of log depth, log size and log focal length.
LEAST_PX, LEAST_DEPTH, LEAST_SIZE, LEAST_FOCAL = 0.3, 0.005, 0.05, 0.015
#: Neighbouring anchors of which the predicted depth is wrong alike: together they say what one says.
ALIKE = 5
#: The most noise that predicted depths, and lenses beside each other, are believed to have.
MOST_DEPTH, MOST_FOCAL = 0.03, 0.05
#: Standard deviation of a principal point as a share of the picture's width, where it is solved for.
CENTRE_SHARE = 0.02
#: From this share of wrong matches on, these count for nothing at the end, at the cost of some accuracy of the others.
MANY_WRONG = 0.15
#: A match agrees when it misses by less than the noise times this.
AGREES = 4.0


@dataclass(frozen=True)
class Knowns:
    """What is given and kept exactly. `focal_px` (N,), `world_from_camera` (N, 4, 4): NaN where a frame's is not known.

    `principal_point` is that of all frames, None for (W/2, H/2).
    """

    focal_px: np.ndarray | None = None
    world_from_camera: np.ndarray | None = None
    principal_point: tuple[float, float] | None = None


@dataclass(frozen=True)
class SparseSolution:
    """N frames in one world: that of the known poses, else the camera of frame `root`, in the network's metres.

    `world_from_camera` (N, 4, 4), `focal_px` (N,), `principal_point` (N, 2) in pixels from the first one's centre,
    `log_size` (N,) of what a frame's predicted depth is multiplied by, `anchor_depth` (N, H/8, W/8): NaN for frames
    that are not `registered` (N,) bool. `agreeing` (N,) matches agree with the frame, `residual_px` (N,) is by how much
    half of them miss at most; `size_spread` is the standard deviation of the frames' log sizes; `steps` were taken.
    """

    world_from_camera: np.ndarray
    focal_px: np.ndarray
    principal_point: np.ndarray
    log_size: np.ndarray
    anchor_depth: np.ndarray
    registered: np.ndarray
    agreeing: np.ndarray
    residual_px: np.ndarray
    size_spread: float
    root: int
    steps: int


def solve_sparse(
    problem: SparseProblem,
    lens: Lens = "each",
    knowns: Knowns = Knowns(),
    *,
    free_principal_point: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> SparseSolution:
    """The largest part of the frames that matches connect; others are not registered, even where their pose is known.

    `progress` is told the fraction done and may raise to stop. Raises ValueError for no frames, for known arrays of
    another shape, and for a locked lens of which not all focal lengths are given.
    """
    count = len(problem.views)
    first_focal = np.array([view.focal_px for view in problem.views], np.float64)
    given_focal = _given(knowns.focal_px, (count,))
    given_pose = _given(knowns.world_from_camera, (count, 4, 4))
    if not count or (lens == "locked" and not np.isfinite(given_focal).all()):
        raise ValueError("a locked lens needs every frame's focal length" if count else "no frames")
    observations = observe(problem, centre=knowns.principal_point)
    focal = np.where(np.isfinite(given_focal), given_focal, first_focal)
    first = first_cameras(observations, focal, count, len(problem.pairs), seed)
    # Depths stay, widths change: of points all over the picture, by the mean square of their widths, 1 the depth's.
    with_focal = 1 / (1 + (problem.size[0] ** 2 + problem.size[1] ** 2) / 12 / first_focal**2)
    held = Held(first.placed, np.log(first_focal), with_focal)
    state, scale_known = _start(first, held, focal, np.isfinite(given_focal), given_pose, lens, observations)
    kept = observations.where(first.good_pairs[observations.pair])
    known_pose = np.isfinite(given_pose).all((-1, -2))
    steps = 0
    noise = None
    while True:
        unknowns = Unknowns(
            held.frames, known_pose, first.root, np.isfinite(given_focal), lens == "shared", free_principal_point
        )
        solved = _solve(kept, state, held, noise, unknowns, scale_known, problem.size[0], progress)
        state, noise, held, taken = solved
        steps += taken
        agrees, missed = _agreement(kept, state, noise, held)
        enough = _enough(kept, agrees, held.frames, known_pose)
        if (enough == held.frames).all():
            break
        held = replace(held, frames=enough)
        kept = kept.where(enough[kept.source] & enough[kept.target])
    progress(1.0)
    centre = knowns.principal_point or (problem.size[0] / 2, problem.size[1] / 2)
    return _solution(problem, centre, state, held, first.root, kept, agrees, missed, steps)


def _given(values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    given = np.full(shape, np.nan) if values is None else np.asarray(values, np.float64)
    if given.shape != shape:
        raise ValueError(f"known values of shape {list(given.shape)}, expected {list(shape)}")
    return given


def _start(first: FirstCameras, held: Held, focal, focal_known, given_pose, lens, observations):
    """The first state with what is known put in, and whether known poses give the world's scale."""
    placed, count = first.placed, len(focal)
    rotation = np.where(placed[:, None, None], first.rotation, np.eye(3))
    place, log_size = np.nan_to_num(first.place), np.nan_to_num(first.log_size)
    known = np.isfinite(given_pose).all((-1, -2))
    both = known & placed
    scale_known = False
    if both.any():
        to_known, scale_known = _into_known_world(rotation[both], place[both], given_pose[both])
        rotation, place = to_known.rotation @ rotation, to_known.apply(place)
        log_size = log_size + np.log(to_known.scale)
    rotation = np.where(known[:, None, None], given_pose[:, :3, :3], rotation)
    place = np.where(known[:, None], given_pose[:, :3, 3], place)
    log_focal = np.log(focal)
    if lens == "shared" and (~focal_known & placed).any():
        log_focal = np.where(focal_known, log_focal, np.median(log_focal[~focal_known & placed]))
    relief = np.zeros(count * observations.anchors_per_frame)
    return State(rotation, place, log_size, log_focal, np.zeros((count, 2)), relief), scale_known


def _into_known_world(rotation: np.ndarray, place: np.ndarray, given: np.ndarray) -> tuple[Similarity, bool]:
    """What brings (K, 3, 3), (K, 3) poses to given (K, 4, 4) ones, the turn by orientations alone; and whether these
    travel, so that they give a scale."""
    turn = mean_rotation(given[:, :3, :3] @ np.swapaxes(rotation, -1, -2))
    middle, given_middle = place.mean(0), given[:, :3, 3].mean(0)
    ours, theirs = (place - middle) @ turn.T, given[:, :3, 3] - given_middle
    extent, along = float((ours * ours).sum()), float((ours * theirs).sum())
    travels = extent > 1e-12 and along > 1e-9 * extent
    scale = along / extent if travels else 1.0
    return Similarity(scale, turn, given_middle - scale * turn @ middle), travels


def _solve(
    o: Observations, state: State, held: Held, noise, unknowns: Unknowns, scale_known: bool, width: int, progress
):
    """Rounds of Gauss-Newton steps; returns state, noise, what it was held to, and the number of steps."""
    taken = 0
    if not len(o):
        return state, noise or _noise(o, state, held, None, width), held, taken
    layout = Layout(o, len(state.log_size))
    for number in range(ROUNDS):
        noise = _noise(o, state, held, noise, width)
        agrees, _ = _agreement(o, state, noise, held)
        sharp = number >= ROUNDS // 2 and agrees.mean() < 1 - MANY_WRONG
        noise = replace(noise, sharp=sharp, joint=number == ROUNDS - 1 and not sharp)
        if scale_known:
            held = replace(held, log_size=float(np.median(state.log_size[held.frames])))
        value = cost(o, state, noise, held)
        damping = 1e-5
        for step_number in range(STEPS):
            progress((number + step_number / STEPS) / ROUNDS)
            normal = normal_equations(o, layout, state, noise, held)
            before = value
            for _ in range(8):
                found = unknowns.step(normal, damping)
                if found is not None:
                    trial = state.moved(*found)
                    trial_value = cost(o, trial, noise, held)
                    if trial_value < value:
                        state, value = trial, trial_value
                        damping = max(damping / 10, 1e-9)
                        break
                damping *= 10
            taken += 1
            if before - value < ENOUGH * abs(before):
                break
    return state, noise, held, taken


def _noise(o: Observations, state: State, held: Held, before: Noise | None, width: int) -> Noise:
    """Measured on matches; what depths, sizes and lenses are held with stays as it was measured at first."""
    seen = views(o, state, held)
    pixel = LOOSE * max(float(np.sqrt(np.median(seen.pixel_square))) / 1.177, LEAST_PX) if len(o) else 1.0
    if before is not None:
        return replace(before, pixel=pixel)
    # Wrong matches, which miss by more pixels than most, tell nothing of depth.
    right = seen.pixel_square <= np.median(seen.pixel_square) if len(o) else np.zeros(0, bool)
    depth = min(max(_spread(seen.log_depth[right]), LEAST_DEPTH), MOST_DEPTH)
    focal = min(max(_spread(held.log_focal[held.frames]), LEAST_FOCAL), MOST_FOCAL)
    size = LOOSE * max(_spread(state.log_size[held.frames]), LEAST_SIZE)
    return Noise(pixel, LOOSE * depth, LOOSE * depth * ALIKE**0.5, size, focal, CENTRE_SHARE * width)


def _spread(values: np.ndarray) -> float:
    """Standard deviation of most of them."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def _agreement(o: Observations, state: State, noise: Noise, held: Held) -> tuple[np.ndarray, np.ndarray]:
    """(M,) whether an observation agrees, and by how many px it misses."""
    seen = views(o, state, held)
    missed = np.sqrt(seen.pixel_square)
    return seen.front & (missed < AGREES / LOOSE * noise.pixel), missed


def _enough(o: Observations, agrees: np.ndarray, frames: np.ndarray, known_pose: np.ndarray) -> np.ndarray:
    """(N,) bool: frames without the one that fewest matches agree with, if these are too few."""
    count = len(frames)
    of = np.bincount(np.r_[o.source, o.target], minlength=count)
    agreeing = np.bincount(np.r_[o.source[agrees], o.target[agrees]], minlength=count)
    share = np.where(frames & ~known_pose, agreeing / np.maximum(of, 1), np.inf)
    bad = frames & ~known_pose & ((agreeing < 2 * LEAST_MATCHES) | (share < LEAST_SHARE))
    if frames.sum() < 2 or not bad.any():
        return frames
    left = frames.copy()
    left[np.where(bad, share, np.inf).argmin()] = False
    return left


def _solution(problem, centre, state: State, held: Held, root, o, agrees, missed, steps) -> SparseSolution:
    frames, count = held.frames, len(state.log_size)
    nan = np.where(frames, 0.0, np.nan)
    pose = poses_from(state.rotation, state.place) + nan[:, None, None]
    core = np.stack([view.core_depth.cpu().numpy().astype(np.float64) for view in problem.views])
    dolly = state.log_size + state.log_focal - held.log_focal
    depth = core * np.exp(dolly[:, None, None] + state.relief.reshape(core.shape)) + nan[:, None, None]
    good = o.target[agrees], missed[agrees]
    residual = np.array([np.median(good[1][good[0] == n]) if (good[0] == n).any() else np.nan for n in range(count)])
    return SparseSolution(
        world_from_camera=pose,
        focal_px=np.exp(state.log_focal) + nan,
        principal_point=np.array(centre) + state.centre + nan[:, None],
        log_size=state.log_size + nan,
        anchor_depth=depth,
        registered=frames,
        agreeing=np.bincount(good[0], minlength=count),
        residual_px=residual,
        size_spread=_spread(state.log_size[frames]),
        root=root,
        steps=steps,
    )
