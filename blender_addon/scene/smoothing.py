"""Smoothing of a camera path: a local quadratic fit around every key, of positions, rotations and lenses.

A quadratic keeps what a camera operator does on purpose, a steady move or one that gathers speed, exactly, also at
the ends and across missing keys, where an average would cut corners and shorten the move (Savitzky and Golay, 1964,
with Gaussian weights and uneven frames).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .camera_path import CameraPath, continuous

#: Keys further than so many strengths away have no say.
_REACH = 3.0
_ROWS_AT_A_TIME = 256


@dataclass(frozen=True)
class Smoothing:
    """How far each part is smoothed: the standard deviation of the weights in frames; 0 leaves it exactly as it is."""

    location: float = 0.0
    rotation: float = 0.0
    lens: float = 0.0


def smooth(path: CameraPath, smoothing: Smoothing) -> CameraPath:
    """The path with every part smoothed by its strength; the same keys at the same frames."""
    lens = np.stack([path.lens, path.shift_x, path.shift_y], axis=1)
    lens = smooth_values(path.frames, lens, smoothing.lens)
    return replace(
        path,
        location=smooth_values(path.frames, path.location, smoothing.location),
        rotation=smooth_rotations(path.frames, path.rotation, smoothing.rotation),
        lens=lens[:, 0],
        shift_x=lens[:, 1],
        shift_y=lens[:, 2],
    )


def smooth_values(frames: np.ndarray, values: np.ndarray, strength: float) -> np.ndarray:
    """(K, C) values at (K,) rising frames, smoothed by `strength` frames."""
    if strength <= 0:
        return values
    smoothed = np.empty(values.shape)
    for rows, columns, weights in _fits(frames, strength):
        # Around the row's own value, so that what does not change comes out exactly as it went in.
        change = values[None, columns] - values[rows, None]
        smoothed[rows] = values[rows] + (weights[..., None] * change).sum(axis=1)
    return smoothed


def smooth_rotations(frames: np.ndarray, quaternions: np.ndarray, strength: float) -> np.ndarray:
    """(K, 4) unit quaternions w x y z, smoothed as rotations from each key to its neighbours."""
    if strength <= 0:
        return quaternions
    smoothed = np.empty(quaternions.shape)
    for rows, columns, weights in _fits(frames, strength):
        here = quaternions[rows]
        turns = _rotation_vectors(_product(_conjugate(here)[:, None], quaternions[None, columns]))
        smoothed[rows] = _product(here, _quaternions((weights[..., None] * turns).sum(axis=1)))
    return continuous(smoothed)


def _fits(frames: np.ndarray, strength: float):
    """(rows, columns, (rows, columns) weights): what each key's fitted value takes from the keys near it."""
    frames = np.asarray(frames, np.float64)
    for start in range(0, len(frames), _ROWS_AT_A_TIME):
        rows = slice(start, min(start + _ROWS_AT_A_TIME, len(frames)))
        first = np.searchsorted(frames, frames[rows][0] - _REACH * strength)
        last = np.searchsorted(frames, frames[rows][-1] + _REACH * strength, side="right")
        columns = slice(int(first), int(last))
        away = (frames[None, columns] - frames[rows, None]) / strength
        near = np.where(np.abs(away) <= _REACH, np.exp(-0.5 * away**2), 0.0)
        powers = away[..., None] ** np.arange(3)
        moments = np.einsum("rc,rci,rcj->rij", near, powers, powers)
        # With fewer than three keys in reach the fit is of a lower degree, which the pseudo-inverse finds.
        constant = np.linalg.pinv(moments, rcond=1e-9, hermitian=True)[:, 0]
        yield rows, columns, near * np.einsum("rci,ri->rc", powers, constant)


def _conjugate(q: np.ndarray) -> np.ndarray:
    return q * (1, -1, -1, -1)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation b followed by a, of (..., 4) quaternions w x y z."""
    w = a[..., :1] * b[..., :1] - (a[..., 1:] * b[..., 1:]).sum(-1, keepdims=True)
    xyz = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + np.cross(a[..., 1:], b[..., 1:])
    return np.concatenate([w, xyz], axis=-1)


def _rotation_vectors(q: np.ndarray) -> np.ndarray:
    """(..., 3) axis times angle in radians of (..., 4) unit quaternions, the short way round."""
    q = q * np.where(q[..., :1] < 0, -1.0, 1.0)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    return q[..., 1:] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)


def _quaternions(vectors: np.ndarray) -> np.ndarray:
    """(..., 4) unit quaternions of (..., 3) axis times angle."""
    half = np.linalg.norm(vectors, axis=-1, keepdims=True) / 2
    return np.concatenate([np.cos(half), vectors * np.sinc(half / np.pi) / 2], axis=-1)
