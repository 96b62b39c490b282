"""An oracle in a streaming network's place: what it would say of a world's frames, one at a time, with known errors.

How it errs, all from the seed and the frame's number, before anybody has looked at the result:

- Its world drifts as odometry does: each step's turn, length and scale are a little wrong, partly always the same way.
  Where it sees again what its memory holds, it is pulled to where that was when it was written (`pull` a frame); but
  what is seen again is written anew, as Point3R's fusion does it, so the pull of a closed loop is short.
- Both pointmaps of a frame show one and the same wrong shape (focal length, depth smoothly and from pixel to pixel),
  and each some of its own; the one in the world is besides turned and shifted a little anew in every frame.
- At edges of depth points hang between front and back; where nothing is to be seen (depth inf) they are anywhere far
  away.
- Confidence tells how large errors are there on the whole, not how large this one is; it is low at edges and of sky.
- The pose head says where the world's drift has the camera, with jitter anew in every frame and a slow error of its
  own.

The default sizes give, over 90 frames of a walk, about what Point3R's paper and those after it report of its pose head
(ATE 0.1 m, steps wrong by 1 to 3 degrees and 0.035 m on ScanNet; facts sheet, section 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter, zoom
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from backend.geometry.camera import project, rays, transform
from backend.geometry.rigid import Similarity, poses_from, similarity_of, vector_of
from backend.streaming.frames import StreamedFrame

from .worlds import World

PATCH = 16
SKY_M = 60.0


@dataclass(frozen=True)
class StreamErrors:
    """Standard deviations. Of the world: what a step turns (degrees), a share of its length, its log scale, and of what
    is wrong alike in all steps; the turn (degrees) and shift (share of the median depth) of one frame's points. Of
    shape: log depth smooth and fine, log focal length of all and of one frame; the log scale of points in the camera.
    Of the pose head: jitter in degrees and metres, and its own slow error, whose steps fade by 0.97 a frame.
    """

    step_deg: float = 0.5
    step_length: float = 0.15
    step_scale: float = 0.008
    always_deg: float = 0.2
    always_scale: float = 0.003
    pull: float = 0.3
    world_deg: float = 0.25
    world_shift: float = 0.003
    smooth_depth: float = 0.015
    fine_depth: float = 0.01
    focal_common: float = 0.015
    focal: float = 0.01
    camera_scale: float = 0.01
    head_deg: float = 0.8
    head_m: float = 0.022
    head_slow_deg: float = 0.5
    head_slow_m: float = 0.03


#: No error but at edges and of sky, which have low confidence.
EXACT = StreamErrors(*([0.0] * 17))


class StreamOracle:
    """A `FrameStream` that knows the world; a frame is recognised by its picture, so any selection may be pushed."""

    def __init__(self, world: World, errors: StreamErrors = StreamErrors(), seed: int = 0) -> None:
        width, height = world.size
        if width % PATCH or height % PATCH:
            raise ValueError(f"{width} x {height} is not whole patches of {PATCH}")
        self.world, self.errors, self.seed = world, errors, seed
        self.reset()

    def reset(self) -> None:
        self._frames: list[int] = []
        #: of each frame: where the drifting world has its camera, a similarity as log scale, turn, shift
        self._cameras = np.zeros((0, 7))
        self._slow = np.zeros(6)
        #: of each pointer: where it is for the network, where in truth, and which frame wrote it
        self._pointers, self._true = np.zeros((0, 3)), np.zeros((0, 3))
        self._writer = np.zeros(0, np.int64)

    def pointers(self) -> np.ndarray:
        return self._pointers.astype(np.float32)

    def save(self) -> Mapping[str, np.ndarray]:
        names = ("frames", "cameras", "slow", "pointers", "true", "writer")
        return {name: np.array(getattr(self, f"_{name}")) for name in names}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        if set(state) != set(self.save()):
            raise ValueError("not a state of the oracle")
        for name, value in state.items():
            setattr(self, f"_{name}", np.array(value))
        self._frames = [int(n) for n in state["frames"]]

    def push(self, rgb: np.ndarray) -> StreamedFrame:
        frame = self._recognise(rgb)
        index = len(self._frames)
        rng = np.random.default_rng([self.seed, index, frame])
        camera = self._drifted(index, frame, rng)
        self._frames.append(frame)
        self._cameras = np.concatenate([self._cameras, vector_of(camera)[None]])
        head = self._head(camera, rng)
        points_camera, points_world, confidence = self._points(frame, camera, rng)
        self._write(index, frame, points_world)
        # the two heads are about equally sure of the same things
        sure = [1 + (confidence * np.exp(0.1 * rng.normal(size=confidence.shape))) for _ in range(2)]
        return StreamedFrame(
            index,
            points_camera.astype(np.float32),
            sure[0].astype(np.float32),
            points_world.astype(np.float32),
            sure[1].astype(np.float32),
            head,
            len(self._pointers),
        )

    def drift(self, index: int) -> Similarity:
        """What the world of pushed frame `index` is of the true one: `drifted = drift(true)`. For tests only."""
        true = Similarity(1.0, *_split(self.world.world_from_camera[self._frames[index]]))
        return similarity_of(self._cameras[index]).compose(true.inverse())

    def _recognise(self, rgb: np.ndarray) -> int:
        if rgb.shape != self.world.rgb.shape[1:]:
            raise ValueError(f"a picture of {rgb.shape}, but the stream's are {self.world.rgb.shape[1:]}")
        few = (slice(None, None, 4), slice(None, None, 4))
        away = np.abs(self.world.rgb[:, few[0], few[1]].astype(np.int16) - rgb[few].astype(np.int16)).mean((1, 2, 3))
        # of a camera that stands still, the next frame that looks so
        later = np.arange(len(away)) > (self._frames[-1] if self._frames else -1)
        return int(np.lexsort((~later, np.round(away, 1)))[0])

    def _drifted(self, index: int, frame: int, rng: np.random.Generator) -> Similarity:
        """Where the network's world has the camera of this frame."""
        e, poses = self.errors, self.world.world_from_camera
        if not index:
            return Similarity()
        always = np.random.default_rng([self.seed, 7])
        wrong_scale = rng.normal(0, e.step_scale) + always.normal(0, e.always_scale)
        wrong_turn = np.radians(rng.normal(0, e.step_deg / 3**0.5, 3) + always.normal(0, e.always_deg / 3**0.5, 3))
        step = np.linalg.inv(poses[self._frames[-1]]) @ poses[frame]
        length = np.linalg.norm(step[:3, 3])
        wrong_shift = rng.normal(0, e.step_length / 3**0.5, 3) * length
        wrong = Similarity(np.exp(wrong_scale), Rotation.from_rotvec(wrong_turn).as_matrix(), wrong_shift)
        camera = similarity_of(self._cameras[-1]).compose(Similarity(1.0, *_split(step))).compose(wrong)
        return camera.compose(similarity_of(e.pull * self._remembered(camera, frame)))

    def _remembered(self, camera: Similarity, frame: int) -> np.ndarray:
        """(7,) from the camera to where the memory of what it sees has it, times the share of the picture it knows."""
        world = self.world
        width, height = world.size
        xy, z = project(self._true, world.intrinsics[frame], world.world_from_camera[frame])
        inside = (z > 0.1) & (xy > 0).all(1) & (xy < (width, height)).all(1)
        column, row = np.where(inside[:, None], xy, 0).astype(int).T
        # a pointer is the mean of its patch's points, so it lies about on the surface
        seen = inside & (np.abs(z / world.depth[frame, row, column] - 1) < 0.15)
        if not seen.any():
            return np.zeros(7)
        writers, counts = np.unique(self._writer[seen], return_counts=True)
        true = Similarity(1.0, *_split(world.world_from_camera[frame]))
        away = [vector_of(camera.inverse().compose(self.drift(w)).compose(true)) for w in writers]
        patches = width * height / PATCH**2
        return min(1.0, seen.sum() / patches) * np.average(away, axis=0, weights=counts)

    def _head(self, camera: Similarity, rng: np.random.Generator) -> np.ndarray:
        """(4, 4) what the pose head says."""
        e = self.errors
        slow = np.r_[[np.radians(e.head_slow_deg)] * 3, [e.head_slow_m] * 3] / 3**0.5
        jitter = np.r_[[np.radians(e.head_deg)] * 3, [e.head_m] * 3] / 3**0.5
        self._slow = 0.97 * self._slow + slow * rng.normal(size=6)
        wrong = self._slow + jitter * rng.normal(size=6)
        rigid = poses_from(camera.rotation, np.asarray(camera.translation, float))
        return rigid @ poses_from(Rotation.from_rotvec(wrong[:3]).as_matrix(), wrong[3:])

    def _points(self, frame: int, camera: Similarity, rng: np.random.Generator):
        """(H, W, 3) in the camera and in the world, and (H, W) confidence above 1."""
        e, world = self.errors, self.world
        width, height = world.size
        true, sky = world.depth[frame].astype(np.float64), ~np.isfinite(world.depth[frame])
        known = np.where(sky, SKY_M, true)
        far, near = maximum_filter(known, 3), minimum_filter(known, 3)
        edge = far / near > 1.1
        # where the network is unsure, and by how much its errors there are larger
        unsure = np.exp(0.4 * self._smooth(rng)) * np.where(edge, 2.0, 1.0)
        between = rng.uniform(0, 1, true.shape)
        known = np.where(edge, near ** (1 - between) * far**between, known)
        shared, own = self._shape(rng, unsure), [self._shape(rng, unsure) for _ in range(2)]
        common = np.random.default_rng([self.seed, 8]).normal(0, e.focal_common)
        focal = common + rng.normal(0, e.focal)
        clouds = []
        for mine in own:
            f = world.intrinsics[frame] * np.r_[[np.exp(focal + 0.3 * e.focal * rng.normal())] * 2, 1, 1]
            depth = known * np.exp(0.8 * shared + 0.6 * mine)
            depth = np.where(sky, SKY_M * np.exp(rng.normal(0, 0.5, depth.shape)), depth)
            clouds.append(rays(f, width, height) * depth[..., None])
        points_camera, points_world = clouds
        points_camera = points_camera * camera.scale * np.exp(rng.normal(0, e.camera_scale))
        turn = Rotation.from_rotvec(np.radians(rng.normal(0, e.world_deg / 3**0.5, 3))).as_matrix()
        shift = rng.normal(0, e.world_shift / 3**0.5, 3) * np.median(known)
        points_world = camera.apply(points_world @ turn.T + shift)
        confidence = np.where(sky, 0.05, 6.0 / unsure**2 * np.where(edge, 0.3, 1.0))
        return points_camera, points_world, confidence

    def _smooth(self, rng: np.random.Generator) -> np.ndarray:
        """(H, W) of standard deviation about 1, smooth over the picture."""
        width, height = self.world.size
        return zoom(rng.normal(size=(4, 5)), (height / 4, width / 5), order=3, mode="nearest", grid_mode=True)

    def _shape(self, rng: np.random.Generator, unsure: np.ndarray) -> np.ndarray:
        """(H, W) an error of log depth."""
        e = self.errors
        return (e.smooth_depth * self._smooth(rng) + e.fine_depth * rng.normal(size=unsure.shape)) * unsure

    def _write(self, index: int, frame: int, points_world: np.ndarray) -> None:
        """Fuse the frame's patches into the memory, as published (facts sheet, section 3.8)."""
        true_depth = np.where(np.isfinite(self.world.depth[frame]), self.world.depth[frame], SKY_M)
        in_camera = rays(self.world.intrinsics[frame], *self.world.size) * true_depth[..., None]
        new, true = _patches(points_world), _patches(transform(self.world.world_from_camera[frame], in_camera))
        if not len(self._pointers):
            self._pointers, self._true, self._writer = new, true, np.full(len(new), index)
            return
        distance, nearest = cKDTree(self._pointers).query(new)
        threshold = np.linalg.norm(np.ptp(np.concatenate([self._pointers, new]), axis=0)) / 20
        fresh = distance >= threshold
        count = np.bincount(nearest[~fresh], minlength=len(self._pointers))
        again = count > 0
        for old, values in ((self._pointers, new), (self._true, true)):
            for k in range(3):
                total = np.bincount(nearest[~fresh], values[~fresh, k], len(old))
                old[again, k] = total[again] / count[again]
        self._writer[again] = index
        self._pointers = np.concatenate([self._pointers, new[fresh]])
        self._true = np.concatenate([self._true, true[fresh]])
        self._writer = np.concatenate([self._writer, np.full(int(fresh.sum()), index)])


def _patches(points: np.ndarray) -> np.ndarray:
    """(N, 3) means of the patches of (H, W, 3), row by row."""
    height, width = points.shape[:2]
    return points.reshape(height // PATCH, PATCH, width // PATCH, PATCH, 3).mean((1, 3)).reshape(-1, 3)


def _split(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pose[:3, :3], pose[:3, 3]
