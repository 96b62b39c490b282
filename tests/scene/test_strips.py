"""Plate and masks in the video sequencer: in step, on free channels, beside what the artist has there."""

import os
from dataclasses import replace

import bpy
import imageio.v3 as iio
import numpy as np
import pytest

from blender_addon.scene.imported import imported_in
from blender_addon.scene.strips import add_strips, strips_of
from blender_addon.wire.errors import UserError
from tests.footage import HEIGHT, WIDTH, index_of, pictures, write_video
from tests.scene.captures import imported, small, with_frames_skipped

PLATE = (WIDTH, HEIGHT)
LABELS = ("Plate", "Mask")
NAMES = {True: ("left_handle", "duration"), False: ("frame_final_start", "frame_final_duration")}


def shot(tmp_path, scene, indices, start=101):
    footage = write_video(tmp_path / "room.mp4", pictures(16), options={"crf": "0", "g": "4"})
    masks = np.zeros((len(indices), HEIGHT, WIDTH), bool)
    for i in range(len(indices)):
        masks[i, :, 30 * i : 30 * (i + 1)] = True
    capture = with_frames_skipped(small(len(indices), PLATE, source=str(footage)), indices)
    imported(replace(capture, plate_masks=masks), tmp_path, scene, images=True, start_frame=start)
    return imported_in(scene)[0]


def sequenced(scene, frame, folder):
    """(H, W, 3) what the sequencer renders."""
    scene.render.use_sequencer = True
    scene.view_settings.view_transform = "Standard"
    scene.frame_set(frame)
    scene.render.filepath = str(folder / "strip.png")
    bpy.ops.render.render(write_still=True)
    return iio.imread(scene.render.filepath)[..., :3]


@pytest.mark.parametrize("indices", [(5, 6, 7, 8), (3, 5, 7, 9)])
def test_plate_and_masks_are_in_step_with_the_capture(tmp_path, scene, indices):
    found = shot(tmp_path, scene, indices)
    plate, mask = add_strips(found, scene, LABELS)
    assert not scene.render.use_sequencer  # the render is still that of the 3D scene
    step = indices[1] - indices[0]
    for strip in (plate, mask):
        new = hasattr(strip, "left_handle")  # 5.2 renames them
        start, length = (getattr(strip, n) for n in NAMES[new])
        assert (start, length) == (101, 4 * step)
    assert (plate.mute, mask.mute) == (False, True)
    for i in (0, 3):
        assert index_of(sequenced(scene, 101 + step * i, tmp_path)) == indices[i]
    mask.mute = False
    for i in (0, 3):
        seen = sequenced(scene, 101 + step * i + step - 1, tmp_path)[:, :, 0]
        assert seen[:, 30 * i + 1 : 30 * i + 29].min() > 250
        assert (seen.max(0) > 5).sum() == pytest.approx(30, abs=2)


def test_strips_of_the_artist_keep_their_channels_and_the_render_its_source(tmp_path, scene):
    found = shot(tmp_path, scene, (0, 1, 2))
    editor = scene.sequence_editor_create()
    end = {"length": 50} if bpy.app.version >= (5, 0) else {"frame_end": 51}
    for channel in (1, 3):
        editor.strips.new_effect(name="Mine", type="COLOR", channel=channel, frame_start=1, **end)
    made = add_strips(found, scene, LABELS)
    assert [strip.channel for strip in made] == [2, 4]
    assert strips_of(found, scene) == made
    assert scene.render.use_sequencer
    with pytest.raises(UserError, match="already"):
        add_strips(found, scene, ("Mask",))
    assert [strip.channel for strip in strips_of(found, scene)] == [2, 4]


def test_files_that_are_gone_are_said_and_nothing_is_added(tmp_path, scene):
    found = shot(tmp_path, scene, (0, 1, 2))
    os.remove(tmp_path / "room.mp4")
    with pytest.raises(UserError, match=r"room\.mp4 is not there"):
        add_strips(found, scene, LABELS)
    assert strips_of(found, scene) == []
