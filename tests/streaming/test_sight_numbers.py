"""A frame some of whose points are not numbers still says what its other points say."""

from __future__ import annotations

import torch

from backend.geometry.camera import rays
from backend.streaming.sight import sight_of_points
from tests.worlds import room


def test_points_that_are_no_numbers_say_nothing():
    world = room(1, 96, 64)
    points = torch.from_numpy(rays(world.intrinsics[0], 96, 64) * world.depth[0][..., None]).float()
    broken = points.clone()
    broken[10:20] = torch.inf
    sure = torch.full((64, 96), 3.0)
    sight = sight_of_points(points, broken, sure, 1.0)
    torch.testing.assert_close(sight.camera_from_world, torch.eye(4), atol=1e-4, rtol=0)
    nothing = sight_of_points(points, torch.full_like(points, torch.nan), sure, 1.0)
    assert not nothing.depth.any()
