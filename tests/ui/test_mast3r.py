"""The MASt3R engine from the artist's button through a server and into the scene: an oracle's set, a random network.

A random network tells no set from another, and is refused. Of pictures that are alike it says what is alike: so a clip
from a tripod goes all the way with it, and what stands in the scene is its own word.
"""

from __future__ import annotations

import hashlib

import bpy
import numpy as np
import pytest
import torch

from backend.nets.predict import network_input
from blender_addon.scene import ImportReport
from blender_addon.scene.imported import imported_in
from tests.backend.test_clip import save_images
from tests.engines.test_mast3r_jobs import images, install, weights  # noqa: F401, fixtures
from tests.mast3r_oracle import FRAMES, HEIGHT, PLATE, WIDTH, clip_of, set_of
from tests.recipe import agreeing_net
from tests.scene.captures import seen_at, shown, static_of

pytestmark = pytest.mark.slow


@pytest.fixture
def asked(scene, images):  # noqa: F811
    """The scene, in which the artist chose the set and the engine."""
    scene.kinora.clip_path = str(images)
    scene.kinora.engine = "mast3r"
    scene.kinora.clip.long_side = WIDTH
    return scene


def test_an_oracle_s_set_is_in_the_scene_in_metres(serve, session, asked):
    serve("tests.mast3r_oracle")
    bpy.ops.kinora.reconstruct(wait=True)
    (found,) = imported_in(asked)
    assert ImportReport.read(found.collection).metric
    centres = []
    for n in range(FRAMES):
        asked.frame_set(asked.frame_start + n)
        centres.append(np.array(asked.camera.matrix_world.translation))
    true = set_of().world_from_camera[:, :3, 3]
    apart = np.linalg.norm(np.array(centres) - centres[0], axis=1)
    np.testing.assert_allclose(apart, np.linalg.norm(true - true[0], axis=1), atol=0.015)


def test_a_random_network_is_refused_in_a_sentence_and_the_scene_stays_as_it_was(serve, weights, session, asked):  # noqa: F811
    serve("backend.pipeline")
    with pytest.raises(RuntimeError, match="could be placed"):
        bpy.ops.kinora.reconstruct(wait=True)
    assert not imported_in(asked)
    assert not asked.objects


@pytest.fixture
def tripod(tmp_path):
    """Three frames from one place, no two of them equal: a sensor's noise of one level."""
    noise = np.random.default_rng(0).normal(0, 1, (3, PLATE * HEIGHT, PLATE * WIDTH, 3)).round()
    pictures = clip_of(set_of(3, "locked")).frames + noise
    return save_images(tmp_path / "tripod", pictures.clip(0, 255).astype(np.uint8))


def test_what_a_random_network_says_of_a_locked_off_clip_is_in_the_scene(serve, weights, session, asked, tripod):  # noqa: F811
    net = agreeing_net()
    install(weights, net)
    asked.kinora.clip_path = str(tripod)
    asked.kinora.engine_mast3r.footage = "sequence"
    serve("backend.pipeline")
    bpy.ops.kinora.reconstruct(wait=True)
    (found,) = imported_in(asked)

    report, capture = ImportReport.read(found.collection), found.capture()
    assert (report.engine, report.shot, report.metric, report.frames_without_camera) == ("mast3r", "locked", True, ())
    assert capture.frame_count == 3
    (stamp,) = capture.engine.weights
    published = (weights / "mast3r" / "model.safetensors").read_bytes()
    assert (stamp["name"], stamp["sha256"]) == ("mast3r", hashlib.sha256(published).hexdigest())

    # The depth is the network's own word; one depth all over would be 0.09 off.
    picture = network_input(np.array(capture.rgb[:1]))
    with torch.inference_mode():
        said = net(picture, picture).pts3d_1[0, ..., 2].numpy()
    assert np.median(np.abs(np.log(capture.depth[0] / said))) < 0.01

    places = []
    for n in range(3):
        asked.frame_set(asked.frame_start + n)
        places.append(np.array(asked.camera.matrix_world))
    np.testing.assert_array_equal(places, [places[0]] * 3)

    # Every point hangs before the camera behind a pixel of its own, at the depth of one of the frames there.
    points = shown(static_of(found.collection))["position"]
    assert len(points) == report.points > 0.99 * WIDTH * HEIGHT
    depth = -((points - places[0][:3, 3]) @ places[0][:3, 2])
    column, row = (seen_at(points, asked) / PLATE - 0.5).T
    x, y = column.round().astype(int), row.round().astype(int)
    np.testing.assert_allclose(np.stack([column, row]), np.stack([x, y]), atol=0.02)
    assert len(set(zip(x, y))) == len(points)
    assert depth.min() > 0
    ranges = np.min(capture.depth, axis=0)[y, x], np.max(capture.depth, axis=0)[y, x]
    assert (depth > 0.999 * ranges[0]).all()
    assert (depth < 1.001 * ranges[1]).all()
