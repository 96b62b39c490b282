"""An oracle in a matching network's place: pointmaps and descriptors of a world's frames, with known errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from scipy.ndimage import zoom

from backend.geometry.camera import unproject
from backend.sparse.views import SymmetricPair, View

from .pair_oracle import Errors, PairOracle
from .worlds import World

DESCRIPTOR_SIZE = 24
#: Wavelengths in metres of the waves that a descriptor is read from: the longest tell walls apart, the shortest pixels.
WAVELENGTHS = (0.5, 12.0)
_ERRORS = Errors(scale=0.02)


class ViewOracle:
    """A `ViewSource` that knows the world.

    A descriptor is a smooth function of the point that a pixel shows (of the place on the mover, for a mover), plus
    `descriptor_noise` as the length of an error that is half smooth over the picture, half from pixel to pixel, and
    different in every decoding. It falls off with the noise that a pixel has: `descriptor_confidence`.
    """

    def __init__(self, world: World, errors: Errors = _ERRORS, descriptor_noise: float = 0.1, seed: int = 0) -> None:
        self.world, self.descriptor_noise, self.seed = world, descriptor_noise, seed
        self._points = PairOracle(world, errors, seed)
        self._true: dict[int, np.ndarray] = {}

    def predict(self, pairs: Iterable[tuple[int, int]]) -> Iterator[SymmetricPair]:
        for i, j in pairs:
            yield SymmetricPair(i, j, *self._decoding(i, j), *self._decoding(j, i))

    def _decoding(self, i: int, j: int) -> tuple[View, View]:
        points_i, points_j, sure_i, sure_j = self._points._pair(i, j)
        rng = np.random.default_rng([self.seed, i, j, 1])
        return self._view(i, points_i, sure_i, rng), self._view(j, points_j, sure_j, rng)

    def _view(self, frame: int, points: np.ndarray, sure: np.ndarray, rng: np.random.Generator) -> View:
        true = self._descriptors(frame)
        error = self._error(true.shape, rng) if self.descriptor_noise else np.zeros(true.shape)
        noisy = true + error
        noisy /= np.linalg.norm(noisy, axis=-1, keepdims=True)
        trust = 10 * np.exp(-np.linalg.norm(error, axis=-1) / max(self.descriptor_noise, 1e-6))
        return View(*(torch.from_numpy(a.astype(np.float32)) for a in (points, sure, noisy, trust)))

    def _error(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Of descriptors (H, W, D)."""
        height, width, size = shape
        coarse = rng.normal(0, 1, (height // 16 + 1, width // 16 + 1, size))
        smooth = zoom(
            coarse, (height / coarse.shape[0], width / coarse.shape[1], 1), order=1, grid_mode=True, mode="nearest"
        )
        return (smooth + rng.normal(0, 1, shape)) * self.descriptor_noise / np.sqrt(2 * size)

    def _descriptors(self, frame: int) -> np.ndarray:
        """(H, W, D) without error."""
        if frame not in self._true:
            self._true[frame] = describe(surface_points(self.world, frame))
        return self._true[frame]


def surface_points(world: World, frame: int) -> np.ndarray:
    """(H, W, 3) the point each pixel shows: in the world, or beside the mover's centre and 20 m away, if it moves."""
    one = slice(frame, frame + 1)
    points = unproject(world.depth[one], world.intrinsics[one], world.world_from_camera[one])[0]
    if world.mover is not None:
        points = np.where(world.dynamic[frame][..., None], points - world.mover.centres[frame] + 20.0, points)
    return points


def describe(points: np.ndarray) -> np.ndarray:
    """(..., 3) points -> (..., D) vectors of length 1, which change smoothly with the point."""
    rng = np.random.default_rng(5)
    direction = rng.normal(size=(3, DESCRIPTOR_SIZE))
    direction /= np.linalg.norm(direction, axis=0)
    wavelength = np.geomspace(*WAVELENGTHS, DESCRIPTOR_SIZE)
    waves = np.sin(points @ (direction * 2 * np.pi / wavelength) + rng.uniform(0, 2 * np.pi, DESCRIPTOR_SIZE))
    return waves / np.linalg.norm(waves, axis=-1, keepdims=True)
