"""The Point3R engine from the artist's button through a server and into the scene: an oracle's clip, and nonsense."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.scene import ImportReport
from blender_addon.scene.imported import imported_in
from tests.engines.test_point3r_jobs import images, weights  # noqa: F401, fixtures
from tests.point3r_oracle import FRAMES, WIDTH, walk

pytestmark = pytest.mark.slow


@pytest.fixture
def asked(scene, images):  # noqa: F811
    """The scene, in which the artist chose the clip and the engine."""
    scene.kinora.clip_path = str(images)
    scene.kinora.engine = "point3r"
    scene.kinora.clip.long_side = WIDTH
    return scene


def test_an_oracle_s_walk_is_in_the_scene_in_metres(serve, session, asked):
    serve("tests.point3r_oracle")
    bpy.ops.kinora.reconstruct(wait=True)
    (found,) = imported_in(asked)
    assert ImportReport.read(found.collection).metric
    centres = []
    for n in range(FRAMES):
        asked.frame_set(asked.frame_start + n)
        centres.append(np.array(asked.camera.matrix_world.translation))
    true = walk().world_from_camera[:, :3, 3]
    apart = np.linalg.norm(np.array(centres) - centres[0], axis=1)
    np.testing.assert_allclose(apart, np.linalg.norm(true - true[0], axis=1), rtol=0.1, atol=0.03)


def test_a_random_network_is_refused_in_a_sentence_and_the_scene_stays_as_it_was(serve, weights, session, asked):  # noqa: F811
    serve("backend.pipeline")
    with pytest.raises(RuntimeError, match="could be placed for only 0 of 8 frames"):
        bpy.ops.kinora.reconstruct(wait=True)
    assert not imported_in(asked)
    assert not asked.objects
