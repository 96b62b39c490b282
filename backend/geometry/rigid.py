"""Rotations, poses and similarities: how one world stands in another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

#: Second singular value of the spread of a point set, relative to the first, below which it is a line or a point.
_STRAIGHT = 1e-6


def quaternions_from_matrices(rotations: np.ndarray) -> np.ndarray:
    """(..., 4) unit quaternions x, y, z, w of (..., 3, 3) rotation matrices."""
    rotations = np.asarray(rotations, np.float64)
    flat = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat()
    return flat.reshape(*rotations.shape[:-2], 4)


def matrices_from_quaternions(quaternions_xyzw: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices of (..., 4) quaternions x, y, z, w, which need not be of unit length."""
    quaternions_xyzw = np.asarray(quaternions_xyzw, np.float64)
    flat = Rotation.from_quat(quaternions_xyzw.reshape(-1, 4)).as_matrix()
    return flat.reshape(*quaternions_xyzw.shape[:-1], 3, 3)


def rotation_angles_deg(rotations: np.ndarray) -> np.ndarray:
    """(...) angles in degrees, 0 to 180, of (..., 3, 3) rotation matrices."""
    rotations = np.asarray(rotations, np.float64)
    angles = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).magnitude()
    return np.degrees(angles).reshape(rotations.shape[:-2])


def mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """(3, 3) rotation nearest to (N, 3, 3) rotations in the chordal sense."""
    return Rotation.from_matrix(rotations).mean().as_matrix()


def poses_from(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """(..., 4, 4) poses of (..., 3, 3) rotations and (..., 3) translations."""
    poses = np.zeros((*rotations.shape[:-2], 4, 4))
    poses[..., :3, :3], poses[..., :3, 3], poses[..., 3, 3] = rotations, translations, 1.0
    return poses


def invert_poses(poses: np.ndarray) -> np.ndarray:
    """(..., 4, 4) inverses of rigid (..., 4, 4) poses, by transposition; NaN stays NaN."""
    rotations = np.swapaxes(poses[..., :3, :3], -1, -2)
    return poses_from(rotations, -(rotations @ poses[..., :3, 3:])[..., 0])


@dataclass(frozen=True)
class Similarity:
    """The map `target = scale * rotation @ source + translation`; identity by default."""

    scale: float = 1.0
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) source points in the target's world."""
        return self.scale * (points @ self.rotation.T) + self.translation

    def apply_to_poses(self, world_from_camera: np.ndarray) -> np.ndarray:
        """(..., 4, 4) poses in the target's world; they stay rigid, so depth must be multiplied by `scale`."""
        rotations = self.rotation @ world_from_camera[..., :3, :3]
        return poses_from(rotations, self.apply(world_from_camera[..., :3, 3]))

    def inverse(self) -> Similarity:
        """The similarity from the target's world to the source's."""
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -(rotation @ self.translation) / self.scale)

    def compose(self, first: Similarity) -> Similarity:
        """The similarity that applies `first` and then this one."""
        return Similarity(
            self.scale * first.scale, self.rotation @ first.rotation, self.apply(np.asarray(first.translation))
        )

    def matrix(self) -> np.ndarray:
        """(4, 4) homogeneous matrix of the map."""
        return poses_from(self.scale * self.rotation, self.translation)


def vector_of(s: Similarity) -> np.ndarray:
    """(7,) log scale, turn as a rotation vector, shift of a similarity."""
    return np.r_[np.log(s.scale), Rotation.from_matrix(s.rotation).as_rotvec(), s.translation]


def similarity_of(vector: np.ndarray) -> Similarity:
    """The similarity of which `vector` (7,) is `vector_of`."""
    return Similarity(float(np.exp(vector[0])), Rotation.from_rotvec(vector[1:4]).as_matrix(), np.array(vector[4:]))


def similarity_between(
    source: np.ndarray, target: np.ndarray, with_scale: bool = True, weight: np.ndarray | None = None
) -> Similarity:
    """The similarity that brings (N, 3) `source` nearest to (N, 3) `target` in the least-squares sense.

    `weight` (N,) is of each point's squared distance, 1 by default. Umeyama 1991, equations 34-43. Raises ValueError
    when the points do not determine it: fewer than three, not finite, or all on one line (then the rotation about that
    line is free).
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(f"expected two (N, 3) arrays of equal shape, got {source.shape} and {target.shape}")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("the points are not all finite")
    if is_straight(source) or is_straight(target):
        raise ValueError("the points lie on one line or in one place, so no similarity is determined")
    share = np.full(len(source), 1 / len(source)) if weight is None else weight / weight.sum()
    source_mean, target_mean = share @ source, share @ target
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd((share[:, None] * b).T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (share @ (a**2).sum(1))) if with_scale else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def is_straight(points: np.ndarray) -> bool:
    """Whether (N, 3) points lie on one line or in one place, to within rounding."""
    if len(points) < 3:
        return True
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    size = np.abs(points).max()
    return bool(spread[1] <= _STRAIGHT * spread[0] or spread[1] <= 1e-12 * size)
