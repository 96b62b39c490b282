"""Exact point tracks through the cameras of `tests/worlds.py`, as a perfect tracker would give them."""

import numpy as np

from backend.classical.tracks import Observations
from backend.geometry.camera import project
from tests.worlds import hand_held

SIZE = (640, 360)
FOCAL_PX = 560.0
INTRINSICS = np.array([FOCAL_PX, FOCAL_PX, 320.0, 180.0])


def exact_tracks(frames: int, motion: str, points: int = 200, noise_px: float = 0.0):
    """(observations, world_from_camera) of random points in a room, each seen wherever it is in the picture."""
    rng = np.random.default_rng(3)
    cameras = hand_held(frames, motion)
    world = rng.uniform((-3, -1.8, 2.0), (3, 1.2, 6.0), (points, 3))
    sightings = []
    for t, camera in enumerate(cameras):
        xy, z = project(world, INTRINSICS, camera)
        xy = xy + rng.normal(0, noise_px, xy.shape)
        inside = np.flatnonzero((z > 0) & (xy > 0).all(axis=1) & (xy < SIZE).all(axis=1))
        sightings += [(n, t, *xy[n]) for n in inside]
    table = np.array(sightings)
    return Observations(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:]), cameras
