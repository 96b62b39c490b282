"""Image motion under a rigid scene: what a camera's own motion explains of an optical flow, and what it does not.

Flows are (H, W, 2) displacements of pixel centres from one frame to another; poses are `b_from_a` 4x4, camera to
camera; intrinsics are fx fy cx cy as in `camera.py`.
"""

from __future__ import annotations

import numpy as np


def intrinsic_matrix(intrinsics: np.ndarray) -> np.ndarray:
    """The 3x3 matrix of fx fy cx cy."""
    fx, fy, cx, cy = intrinsics
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def fundamental(b_from_a: np.ndarray, intrinsics_a: np.ndarray, intrinsics_b: np.ndarray) -> np.ndarray:
    """F with `x_b^T F x_a = 0` for every static point (Hartley and Zisserman 2004, eq. 9.2): K_b^-T [t]x R K_a^-1."""
    x, y, z = b_from_a[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    essential = cross @ b_from_a[:3, :3]
    return np.linalg.inv(intrinsic_matrix(intrinsics_b)).T @ essential @ np.linalg.inv(intrinsic_matrix(intrinsics_a))


def epipolar_distance(xy_a: np.ndarray, xy_b: np.ndarray, f: np.ndarray) -> np.ndarray:
    """(...) pixels between points (..., 2) in b and the epipolar lines of their origins (..., 2) in a."""
    f = f / np.linalg.norm(f)
    a, b, c = (xy_a[..., 0] * row[0] + xy_a[..., 1] * row[1] + row[2] for row in f)
    distance = np.abs(a * xy_b[..., 0] + b * xy_b[..., 1] + c)
    return distance / np.maximum(np.hypot(a, b), 1e-12)


def apply_homography(h: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(..., 2) points moved by a 3x3 homography."""
    p = xy @ h[:, :2].T + h[:, 2]
    return p[..., :2] / p[..., 2:]


def rotation_homography(b_from_a: np.ndarray, intrinsics_a: np.ndarray, intrinsics_b: np.ndarray) -> np.ndarray:
    """K_b R K_a^-1: where points at infinity go, and all points when the camera only turns."""
    return intrinsic_matrix(intrinsics_b) @ b_from_a[:3, :3] @ np.linalg.inv(intrinsic_matrix(intrinsics_a))


def unexplained_motion(
    xy_a: np.ndarray,
    xy_b: np.ndarray,
    b_from_a: np.ndarray,
    intrinsics_a: np.ndarray,
    intrinsics_b: np.ndarray,
) -> np.ndarray:
    """(...) pixels by which points (..., 2) seen at `xy_a` and `xy_b` break the motion of a static scene.

    The distance from the epipolar line; for a camera that did not travel, from the one place left to the point.
    """
    if not b_from_a[:3, 3].any():
        away = xy_b - apply_homography(rotation_homography(b_from_a, intrinsics_a, intrinsics_b), xy_a)
        return np.hypot(away[..., 0], away[..., 1])
    return epipolar_distance(xy_a, xy_b, fundamental(b_from_a, intrinsics_a, intrinsics_b))


def inverse_depth_equations(
    xy_b: np.ndarray, rays_a: np.ndarray, b_from_a: np.ndarray, intrinsics_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a correspondence says of a point's inverse depth rho in frame a: `slope * rho = offset`.

    `xy_b` (..., 2) is where the point is seen in b, `rays_a` (..., 3) its ray in a with z = 1. With q = K R ray and
    e = K t the point appears at (q + rho e) / (q_z + rho e_z), which is linear in rho after multiplying out. Returns
    slope (..., 2), offset (..., 2), and q_z, e_z: dividing an equation by q_z + rho e_z makes its residual pixels.
    """
    k = intrinsic_matrix(intrinsics_b)
    q = rays_a @ (k @ b_from_a[:3, :3]).T
    e = k @ b_from_a[:3, 3]
    return e[:2] - xy_b * e[2], xy_b * q[..., 2:] - q[..., :2], q[..., 2], e[2]


def forward_backward_error(forward: np.ndarray, backward_at_target: np.ndarray) -> np.ndarray:
    """(H, W) pixels by which going there and back misses the start; `backward_at_target` is read where forward ends."""
    away = forward + backward_at_target
    return np.hypot(away[..., 0], away[..., 1])
