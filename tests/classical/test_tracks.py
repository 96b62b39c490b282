"""The point tracker on a rendered room whose geometry is known."""

import numpy as np
import pytest

from backend.classical.tracks import SHORTEST, track_points
from backend.geometry.camera import project, unproject
from backend.run import Run
from tests.worlds import room


@pytest.fixture(scope="module")
def world():
    return room(10, 320, 180)


@pytest.fixture(scope="module")
def tracks(world):
    return track_points(world.rgb, 300, Run())


def test_tracks_stay_on_their_points_without_drift(world, tracks):
    """Static points, unprojected where they begin, are seen where the camera puts them, however much later."""
    o = tracks.where(np.lexsort([tracks.frame, tracks.track]))
    start = np.flatnonzero(np.diff(o.track, prepend=-1) > 0)
    first = np.repeat(start, np.diff(np.append(start, len(o))))
    points = unproject(world.depth, world.intrinsics, world.world_from_camera)
    x, y = np.floor(o.xy[first]).astype(int).T
    begun = o.frame[first]
    # The depth of the pixel that a track begins in, moved to the track's exact place in it.
    depth = project(points[begun, y, x][:, None], world.intrinsics[begun], world.world_from_camera[begun])[1][:, 0]
    fx, fy, cx, cy = world.intrinsics[0]
    ray = np.column_stack([(o.xy[first] - (cx, cy)) / (fx, fy), np.ones(len(o))])
    camera = world.world_from_camera[begun]
    anchor = (camera[:, :3, :3] @ (ray * depth[:, None])[..., None])[..., 0] + camera[:, :3, 3]
    expected = project(anchor[:, None], world.intrinsics[o.frame], world.world_from_camera[o.frame])[0][:, 0]
    off = np.linalg.norm(expected - o.xy, axis=1)[~world.dynamic[begun, y, x]]
    late = (o.frame - begun)[~world.dynamic[begun, y, x]] >= 5
    assert np.median(off) < 0.1
    assert np.median(off[late]) < 0.15


def test_tracks_are_spread_over_the_picture_and_never_too_short(tracks):
    assert np.bincount(tracks.track)[tracks.track].min() >= SHORTEST
    columns, rows = (tracks.xy[tracks.frame == 4] // (80, 60)).astype(int).T
    assert len(set(zip(columns, rows))) == 4 * 3


def test_a_track_is_in_one_place_at_a_time(tracks):
    pairs = np.column_stack([tracks.track, tracks.frame])
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_an_even_picture_has_no_tracks():
    assert len(track_points(np.full((4, 90, 160, 3), 128, np.uint8), 100, Run())) == 0
