"""A plate of the same set, from the artist's button through a server and the real method to a camera in the scene."""

from __future__ import annotations

import subprocess
import sys

import bpy
import cv2
import numpy as np
import pytest

from backend.geometry.rigid import rotation_angles_deg
from blender_addon.scene.conventions import OPENCV_FROM_BLENDER_CAMERA
from blender_addon.scene.imported import imported_in
from blender_addon.scene.plate_facts import PlateFacts
from blender_addon.scene.plates import plate_cameras
from tests.localise.sets import PLATE_FOCAL, PLATE_SIZE, ROOM_M, held_out

from .conftest import ROOT, SERVE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose captures are true; plates are localised by what Kinora has for it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KINORA_HOME", str(tmp_path_factory.mktemp("home")))
    serve = SERVE.replace("tests.pipeline_for_tests", "tests.localise.pipeline")
    process = subprocess.Popen([sys.executable, "-c", serve], cwd=ROOT, stdout=subprocess.PIPE)
    process.stdout.readline()  # it listens
    yield process
    process.terminate()
    process.wait(20)
    patch.undo()


@pytest.fixture
def room(server, scene, clip):
    scene.kinora.clip_path = str(clip)
    bpy.ops.kinora.reconstruct(wait=True)
    (found,) = imported_in(scene)
    return found


def off(camera, root, scene, truth) -> tuple[float, float]:
    """Metres and degrees between Blender's camera at the scene's frame, in the capture's world, and a (4, 4) truth."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    seen = camera.evaluated_get(depsgraph).matrix_world.normalized()
    world = root.evaluated_get(depsgraph).matrix_world
    place = np.array(world.inverted() @ camera.evaluated_get(depsgraph).matrix_world.translation)
    turn = np.array((world.normalized().inverted() @ seen).to_3x3()) @ OPENCV_FROM_BLENDER_CAMERA[:3, :3]
    away = float(np.linalg.norm(place - truth[:3, 3]))
    return away, float(rotation_angles_deg((turn.T @ truth[:3, :3])[None])[0])


def test_a_clip_and_a_still_are_found_where_they_were_shot(session, scene, room, tmp_path):
    """With the root moved and scaled: within 0.5 % of the set's size and 0.3 degrees, with and without its lens."""
    plate = held_out()
    for t, frame in enumerate(plate.clip.frames):
        cv2.imwrite(str(tmp_path / f"plate_{t + 1:03d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    room.root.location, room.root.scale = (4, -1, 2), (1.7,) * 3
    focal_mm = 36 * PLATE_FOCAL / PLATE_SIZE[0]
    how = {"matcher": "classic", "focal_mm": focal_mm, "wait": True}
    bpy.ops.kinora.localise_plate(filepath=str(tmp_path / "plate_001.png"), **how)
    bpy.ops.kinora.localise_plate(filepath=str(tmp_path / "plate_003.png"), still=True, matcher="classic", wait=True)
    clip, still = sorted(plate_cameras(room), key=lambda ob: -len(PlateFacts.read(ob).found))
    facts = PlateFacts.read(clip)
    assert facts.found.tolist() == [True] * 4
    assert (facts.inliers > 50).all()
    assert (facts.error_px < 1).all()
    assert not [note for note in facts.notes if "off the plate" in note]
    away, turned = [], []
    for t in range(4):
        scene.frame_set(int(facts.scene_frames[t]))
        metres, degrees = off(clip, room.root, scene, plate.world_from_camera[t])
        away.append(metres)
        turned.append(degrees)
    assert np.median(away) < 0.005 * ROOM_M
    assert np.median(turned) < 0.3
    assert clip.data.lens == pytest.approx(focal_mm, rel=1e-4)
    metres, degrees = off(still, room.root, scene, plate.world_from_camera[2])
    assert metres < 0.01 * ROOM_M
    assert degrees < 0.6
    assert still.data.lens == pytest.approx(focal_mm, rel=0.02)
    assert still.data.background_images[0].image.filepath.endswith("plate_003.png")
    print(f"clip {np.median(away) / ROOM_M:.3%}, {np.median(turned):.3f} degrees")
    print(f"still {metres / ROOM_M:.3%}, {degrees:.3f} degrees")


def test_a_plate_of_another_place_is_refused_and_not_placed(session, scene, room, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    with pytest.raises(RuntimeError, match="does not seem to belong to this capture"):
        bpy.ops.kinora.localise_plate(filepath=str(tmp_path / "noise.png"), still=True, matcher="classic", wait=True)
    assert not plate_cameras(room)
