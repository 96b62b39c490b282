"""The camera of every streamed frame, from what the network says of its points, and steadied by what its picture shows.

The pose head is the network's weak output. Its two pointmaps say the same camera better: the pose that takes points in
the camera to the same points in the world. `source` chooses how it is found; where a way fails the next one stands in,
and the frame says so:

    pnp -> robust -> head,   robust -> pnp -> head,   procrustes -> head,   head.

Steadied poses stay in the network's world, where its points and pointers are, and so drift as that does; what the
pictures say beyond that is for `refining.py`, after the clip. A pose that even the head does not have is NaN, never an
identity matrix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..geometry.rigid import Similarity, poses_from, similarity_between, similarity_of, vector_of
from .focal import centre_of, frame_focal
from .following import Motion, View, camera_by_points, corners, follow, motion, seen_from, view_of

Source = Literal["head", "procrustes", "robust", "pnp"]
FALLBACK: dict[str, tuple[str, ...]] = {
    "head": ("head",),
    "procrustes": ("procrustes", "head"),
    "robust": ("robust", "pnp", "head"),
    "pnp": ("pnp", "robust", "head"),
}
#: Points of a frame that a pose is found by.
POINTS = 2000
#: The least sure share of a frame's points takes no part.
UNSURE = 0.2
#: Rounds of reweighting; a point counts half that misses by this many times what most do.
ROUNDS, LOOSE = 12, 1.5
#: A point agrees that misses by less than this share of its distance; fewer agreeing points than this are a failure.
AGREES, LEAST_AGREEING = 0.1, 0.3
#: How far a point of the world may be seen from its pixel, as a share of the picture's width.
REACH = 0.015
#: Corners followed from frame to frame; steps that what is known of their errors is learned from, at most and at least.
CORNERS, LEARN, LEAST_LEARNT = 300, 120, 10


@dataclass(frozen=True)
class PoseOptions:
    """`source` of the pose; `steady`: what the picture says of each step takes part too, weighed by how much either has
    been seen to err; `focal_px` where the lens is known, else it is found as frames come in."""

    source: Source = "pnp"
    steady: bool = True
    focal_px: float | None = None


@dataclass(frozen=True)
class FramePose:
    """`world_from_camera` (4, 4), NaN when there is none; `scale` by which the frame's depth must be multiplied to have
    the world's unit; which `source` said so; the share of points that `agree`; `steadied`: whether the picture did too.
    """

    world_from_camera: np.ndarray
    scale: float
    source: str | None
    agree: float
    steadied: bool = False

    @property
    def found(self) -> bool:
        """Whether there is a camera."""
        return bool(np.isfinite(self.world_from_camera).all())

    @property
    def similarity(self) -> Similarity:
        """From points in the frame's camera, as the network has them, to the world."""
        return Similarity(self.scale, self.world_from_camera[:3, :3], self.world_from_camera[:3, 3])


NO_POSE = FramePose(np.full((4, 4), np.nan), 1.0, None, 0.0)


class PoseTracker:
    """Takes frames as they are streamed and says each one's camera. It holds one frame and the last steps."""

    def __init__(self, options: PoseOptions = PoseOptions()) -> None:
        self.options = options
        self._logs: list[float] = []
        self._before: tuple[View, FramePose, FramePose] | None = None
        self._steps: deque[np.ndarray] = deque(maxlen=LEARN)

    @property
    def focal_px(self) -> float:
        """The lens as it is known after the frames so far; NaN before the first."""
        if self.options.focal_px is not None:
            return self.options.focal_px
        return float(np.exp(np.median(self._logs))) if self._logs else float("nan")

    def push(self, frame, rgb: np.ndarray | None = None, moving: np.ndarray | None = None) -> FramePose:
        """The camera of a `StreamedFrame`; without its picture `rgb` (H, W, 3) uint8 it is not steadied.

        Pixels of `moving` (H, W) bool take no part.
        """
        still = True if moving is None else ~moving
        keep = sure_points(frame) & still
        if self.options.focal_px is None:
            focal = frame_focal(frame.points_camera, keep)
            if np.isfinite(focal):
                self._logs.append(float(np.log(focal)))
        said = network_pose(frame, keep, self.focal_px, self.options.source)
        if rgb is None or not self.options.steady:
            return said
        focal = self.focal_px
        if not np.isfinite(focal):
            self._before = None
            return said
        # what the map in the world says is not needed for a step
        usable = _surer(frame.confidence_camera) & _in_front(frame) & still
        centre = centre_of(*frame.confidence_camera.shape[::-1])
        view = view_of(rgb, frame.points_camera[..., 2], usable, focal, centre)
        pose = self._steadied(view, said)
        self._before = (view, said, pose) if pose.found else None
        return pose

    def save(self) -> dict[str, np.ndarray]:
        """The state after the frames so far as plain arrays, from which `restore` goes on bit for bit."""
        state = {"logs": np.array(self._logs), "steps": np.array(self._steps).reshape(-1, 7)}
        if self._before is None:
            return state
        view, *poses = self._before
        state |= {"grey": view.grey, "depth": view.depth, "lens": np.array([view.focal_px, *view.centre])}
        for name, pose in zip(("said", "pose"), poses):
            state |= {name: pose.world_from_camera, f"{name}.scale": np.array([pose.scale])}
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a saved state."""
        self._logs = [float(value) for value in state["logs"]]
        self._steps = deque((np.array(step) for step in state["steps"]), maxlen=LEARN)
        self._before = None
        if "grey" not in state:
            return
        focal, *centre = (float(value) for value in state["lens"])
        view = View(np.array(state["grey"]), np.array(state["depth"]), focal, tuple(centre))
        said, pose = (
            FramePose(np.array(state[name]), float(state[f"{name}.scale"][0]), "kept", 0.0) for name in ("said", "pose")
        )
        self._before = view, said, pose

    def _steadied(self, view: View, said: FramePose) -> FramePose:
        """The pose that the network said and the step that the pictures show, each by its worth."""
        if self._before is None:
            return said
        before, said_before, pose_before = self._before
        said_step = _relative(said_before, said) if said.found and said_before.found else None
        step = picture_step(before, view, said_step)
        if step is None:
            self._steps.clear()
            return said
        # b's points in a's camera, in the unit of a's depth
        from_step = pose_before.similarity.compose(step.a_from_b)
        if not said.found:
            return _frame_pose(from_step, "step", 0.0, True)
        if said_step is not None:
            self._steps.append(vector_of(step.a_from_b.inverse().compose(said_step)))
        away = vector_of(from_step.inverse().compose(said.similarity))
        steadied = from_step.compose(similarity_of(gains(np.array(self._steps).reshape(-1, 7)) * away))
        return _frame_pose(steadied, said.source, said.agree, True)


def gains(between: np.ndarray) -> np.ndarray:
    """(7,) how much of the way from the step's pose to the said one is gone, for log scale, turn and shift.

    `between` (N, 7) is by how much steps of the said poses differ from those seen in the pictures. What a said pose
    errs anew each frame shows in two steps, with opposite signs; what is left is the wandering of both. That is the
    local level model, and this the gain of its steady filter (Harvey 1989, section 4.1.2). Half while too little is
    known.
    """
    gain = np.full(7, 0.5)
    if len(between) < LEAST_LEARNT:
        return gain
    most = 4 * np.median(np.abs(between), axis=0) + 1e-12
    d = between.clip(-most, most)
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        total = float((d[:, part] ** 2).mean())
        jitter = max(-float((d[1:, part] * d[:-1, part]).mean()), 0.0)
        jitter = min(jitter, 0.5 * total)
        wander = max(total - 2 * jitter, 0.01 * total)
        spread = 0.5 * (wander + np.sqrt(wander**2 + 4 * wander * jitter))
        gain[part] = spread / (spread + jitter) if spread + jitter > 0 else 1.0
    return gain


def picture_step(a: View, b: View, guess: Similarity | None) -> Motion | None:
    """How the camera moved between two frames by their pictures; first looked for where `guess` (a from b) says."""
    xy_a = corners(a, CORNERS)
    starts = [None]
    if guess is not None and len(xy_a):
        inverse = guess.inverse()
        b_from_a = poses_from(inverse.rotation, inverse.translation * guess.scale)
        there, _ = seen_from(b, b_from_a, a.points(xy_a, a.depth_at(xy_a)))
        starts = [np.where(np.isfinite(there), there, xy_a), None]
    for start in starts:
        xy_b, ok = follow(a, b, xy_a, start)
        found = motion(a, b, xy_a[ok], xy_b[ok])
        if found is not None:
            return found
    return None


def network_pose(frame, keep: np.ndarray, focal_px: float, source: Source) -> FramePose:
    """What the network says of a frame's camera, by `source` or what stands in for it; pixels of `keep` take part."""
    for way in FALLBACK[source]:
        if way == "head":
            if not np.isfinite(frame.world_from_camera).all():
                continue
            return FramePose(np.array(frame.world_from_camera, np.float64), 1.0, "head", 0.0)
        if way == "procrustes":
            found = procrustes(frame)
        else:
            rows, columns = _sample(keep)
            inside = frame.points_camera[rows, columns].astype(np.float64)
            world = frame.points_world[rows, columns].astype(np.float64)
            sure = np.sqrt(
                (frame.confidence_camera[rows, columns] - 1.0) * (frame.confidence_world[rows, columns] - 1.0)
            )
            if way == "robust":
                found = robust_similarity(inside, world, sure)
            else:
                size = frame.confidence_camera.shape[::-1]
                found = _by_pixels(inside, world, np.stack([columns, rows], 1).astype(float), focal_px, size)
        if found is not None:
            return found
    return NO_POSE


def procrustes(frame) -> FramePose | None:
    """As published: all points, weighted by log(confidence) of both maps, no scale; facts sheet, section 6."""
    weight = np.log(frame.confidence_camera.astype(np.float64)) * np.log(frame.confidence_world.astype(np.float64))
    a, b = (p.reshape(-1, 3).astype(np.float64) for p in (frame.points_camera, frame.points_world))
    fit = _weighted(a, b, weight.ravel(), with_scale=False)
    return None if fit is None else _frame_pose(fit, "procrustes", 1.0)


def robust_similarity(inside: np.ndarray, world: np.ndarray, sure: np.ndarray) -> FramePose | None:
    """The similarity from (N, 3) points in the camera to the same in the world that most of them agree with.

    Points count by `sure` (N,) and by how well they agree, relative to their distance (Geman and McClure 1987). None
    where they do not.
    """
    good = np.isfinite(inside).all(1) & np.isfinite(world).all(1) & (inside[:, 2] > 0)
    inside, world, sure = inside[good], world[good], sure[good]
    if len(inside) < 10:
        return None
    distance = np.linalg.norm(inside, axis=1)
    weight = sure / distance**2
    robust = np.ones(len(inside))
    fit = None
    for _ in range(ROUNDS):
        fit = _weighted(inside, world, weight * robust)
        if fit is None:
            return None
        miss = np.linalg.norm(fit.apply(inside) - world, axis=1) / (fit.scale * distance)
        loose = LOOSE * max(float(np.median(miss)), 1e-6)
        robust = 1 / (1 + (miss / loose) ** 2) ** 2
    agree = float((miss < AGREES).mean())
    return _frame_pose(fit, "robust", agree) if agree >= LEAST_AGREEING else None


def _by_pixels(inside, world, xy, focal_px: float, size: tuple[int, int]) -> FramePose | None:
    """The camera that sees the world's points (N, 3) at their pixels (N, 2), and its scale by the depth (N, 3) has."""
    good = np.isfinite(inside).all(1) & np.isfinite(world).all(1) & (inside[:, 2] > 0)
    if not np.isfinite(focal_px):
        return None
    (cx, cy), f = centre_of(*size), focal_px
    found = camera_by_points(
        world[good], xy[good], np.array([[f, 0, cx], [0, f, cy], [0, 0, 1.0]]), max(1.0, REACH * size[0])
    )
    if found is None:
        return None
    camera_from_world, chosen = found
    z = (world[good] @ camera_from_world[:3, :3].T + camera_from_world[:3, 3])[chosen, 2]
    scale = float(np.exp(np.median(np.log(z / inside[good][chosen, 2]))))
    pose = np.linalg.inv(camera_from_world)
    return FramePose(pose, scale, "pnp", len(chosen) / len(xy))


def _weighted(a: np.ndarray, b: np.ndarray, weight: np.ndarray, with_scale: bool = True) -> Similarity | None:
    """The weighted fit of (N, 3) to (N, 3); None where it is not determined."""
    keep = np.isfinite(a).all(1) & np.isfinite(b).all(1) & np.isfinite(weight) & (weight > 0)
    a, b, weight = a[keep], b[keep], weight[keep]
    if len(a) < 3:
        return None
    try:
        return similarity_between(a, b, with_scale, weight)
    except ValueError:
        return None


def sure_points(frame) -> np.ndarray:
    """(H, W) bool: all but the least sure points of a frame, of those that both maps have."""
    both = frame.confidence_camera * frame.confidence_world
    return _surer(both) & np.isfinite(frame.points_world).all(-1) & _in_front(frame)


def _surer(confidence: np.ndarray) -> np.ndarray:
    return confidence >= np.quantile(confidence, UNSURE)


def _in_front(frame) -> np.ndarray:
    return np.isfinite(frame.points_camera).all(-1) & (frame.points_camera[..., 2] > 0)


def _sample(keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of about POINTS pixels of (H, W) `keep`, spread over it."""
    chosen = np.flatnonzero(keep)
    step = max(1, len(chosen) // POINTS)
    return np.unravel_index(chosen[step // 2 :: step], keep.shape)


def _relative(a: FramePose, b: FramePose) -> Similarity:
    """From b's points to a's camera, each as its frame has it."""
    return a.similarity.inverse().compose(b.similarity)


def _frame_pose(s: Similarity, source: str, agree: float, steadied: bool = False) -> FramePose:
    return FramePose(poses_from(s.rotation, np.asarray(s.translation)), float(s.scale), source, agree, steadied)
