"""The operators of Plate and Masks from a script: compositor, strips, view transform and the mask round trip."""

from dataclasses import replace
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from backend.export import CAPTURE_FILES
from backend.wire import write_capture
from blender_addon.scene.grey import read_grey, write_grey
from blender_addon.scene.imported import imported_in
from blender_addon.scene.strips import strips_of
from blender_addon.ui.elements import KINORA_PT_elements
from blender_addon.ui.masks import KINORA_PT_masks
from tests.worlds import as_capture, room

from .test_panels import Recorder, in_sidebar, squeezed


@pytest.fixture
def found(scene, tmp_path):
    capture = as_capture(room(3, 48, 32))
    capture = replace(capture, plate_masks=np.array(capture.dynamic))
    folder = write_capture(capture, tmp_path / "room", CAPTURE_FILES)
    bpy.ops.kinora.import_capture(directory=str(folder))
    return imported_in(scene)[0]


def test_cg_behind_movers_goes_in_and_out(found, scene):
    scene.render.film_transparent = False
    assert bpy.ops.kinora.add_behind_movers() == {"FINISHED"}
    assert scene.render.film_transparent
    assert not bpy.ops.kinora.add_behind_movers.poll()
    assert bpy.ops.kinora.remove_behind_movers() == {"FINISHED"}
    assert not scene.render.film_transparent
    assert not bpy.ops.kinora.remove_behind_movers.poll()


def test_strips_are_those_that_were_asked_for(found, scene):
    bpy.ops.kinora.add_strips(mask=False, depth=True)
    assert [strip.name for strip in strips_of(found, scene)] == ["room Frames", "room Depth"]
    with pytest.raises(RuntimeError, match="No picture is chosen"):
        bpy.ops.kinora.add_strips(plate=False, mask=False)


def drawn(panel, found):
    seen = []
    with in_sidebar():
        panel.draw_import(SimpleNamespace(layout=Recorder(seen)), bpy.context, found)
    return squeezed(" ".join(seen))


def test_the_panels_offer_what_can_be_done(found, scene):
    text = drawn(KINORA_PT_elements, found)
    assert "FramesMaskDepthConfidence" in text.replace("[]", "")
    assert "[AddCGBehindMovers]" in text
    assert "AgXshowstheplateinothercolours[UseStandardView]" in text
    bpy.ops.kinora.add_behind_movers()
    bpy.ops.kinora.use_standard_view()
    text = drawn(KINORA_PT_elements, found)
    assert "[RemoveCGBehindMovers]" in text
    assert "Standard" not in text
    assert "[PaintonaCopy][MaskstoSplines]" in drawn(KINORA_PT_masks, found)


def test_the_view_transform_is_offered_and_not_forced(found, scene):
    assert scene.view_settings.view_transform == "AgX"
    bpy.ops.kinora.use_standard_view()
    assert scene.view_settings.view_transform == "Standard"
    assert not bpy.ops.kinora.use_standard_view.poll()


def test_masks_are_copied_edited_and_used(found, scene, tmp_path):
    bpy.ops.kinora.edit_masks()
    folder = tmp_path / "room_masks"
    assert scene.kinora_masks.folder == str(folder)
    for path in folder.iterdir():
        write_grey(path, np.full((32, 48), 255, np.uint8))
    assert bpy.ops.kinora.use_masks() == {"FINISHED"}
    assert scene.kinora.masks_path == str(folder)
    static = imported_in(scene)[0].objects("static")
    assert sum(len(ob.data.points) for ob in static) == 0  # everything moves


def test_splines_of_the_current_frame_are_written_as_masks(found, scene, tmp_path):
    scene.frame_set(2)
    bpy.ops.kinora.masks_to_splines(tolerance=0, smallest=0)
    assert [layer.name for layer in scene.kinora_masks.mask.layers] == ["Frame 2"]
    bpy.ops.kinora.render_masks(directory=str(tmp_path / "drawn"))
    truth = read_grey(tmp_path / "room" / "dynamic_mask_0001.png")
    assert truth.any()
    for i in range(3):
        assert np.array_equal(read_grey(tmp_path / "drawn" / f"mask_{i:04d}.png"), truth)
    bpy.ops.kinora.use_masks(split=False)
    assert scene.kinora.masks_path == str(tmp_path / "drawn")


def test_a_layer_for_every_second_frame(found, scene):
    bpy.ops.kinora.masks_to_splines(frames="ALL", step=2)
    assert [layer.name for layer in scene.kinora_masks.mask.layers] == ["Frame 1", "Frame 3"]


def test_what_is_missing_is_said(found, scene, tmp_path):
    with pytest.raises(RuntimeError, match="No folder of masks is chosen"):
        bpy.ops.kinora.use_masks()
    with pytest.raises(RuntimeError, match="No mask is chosen"):
        bpy.ops.kinora.render_masks()
    with pytest.raises(RuntimeError, match="There is no window"):
        bpy.ops.kinora.show_picture(label="Mask")
    (tmp_path / "room").rename(tmp_path / "moved")
    for operator in (bpy.ops.kinora.edit_masks, bpy.ops.kinora.masks_to_splines, bpy.ops.kinora.add_strips):
        with pytest.raises(RuntimeError, match=r"Relink Capture|is not there"):
            operator()
