"""The panel's properties are the settings dataclasses: same fields, labels, defaults, limits, choices and values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bpy
import pytest

from blender_addon.scene.options import ImportOptions
from blender_addon.ui.facts import lines, look
from blender_addon.ui.properties import engine_property, read_group, write_group
from blender_addon.wire.errors import UserError
from blender_addon.wire.settings import ENGINES, ClipSettings, JobSettings, LensSettings

GROUPS = {
    "clip": ClipSettings,
    "lens": LensSettings,
    "import_options": ImportOptions,
    **{engine_property(name): info.settings for name, info in ENGINES.items()},
}
#: A script makes a new import each time; an artist who imports a clip again means the one that is there.
PANEL_DEFAULTS = {("import_options", "existing"): "update"}
LONGEST_LABEL = 15  # letters that fit beside a value in a sidebar of default width


@pytest.mark.parametrize("path", GROUPS)
def test_properties_mirror_the_settings(scene, path):
    properties = getattr(scene.kinora, path).bl_rna.properties
    for field in dataclasses.fields(GROUPS[path]):
        prop, meta = properties[field.name], field.metadata
        assert prop.name == meta["label"]
        assert len(prop.name) <= LONGEST_LABEL or prop.type == "BOOLEAN", "the panel would cut its label"
        assert prop.description == meta["help"]
        assert not prop.description.endswith(".")  # Blender adds the full stop
        if type(field.default) is float:
            assert prop.default == pytest.approx(field.default, rel=1e-6)
        else:
            assert prop.default == PANEL_DEFAULTS.get((path, field.name), field.default)
        for limit, attribute in (("minimum", "hard_min"), ("maximum", "hard_max")):
            if meta[limit] is not None:
                assert getattr(prop, attribute) == pytest.approx(meta[limit], rel=1e-6)
        if meta["choices"]:
            assert [(i.identifier, i.name, i.description) for i in prop.enum_items] == list(meta["choices"])


def test_every_engine_can_be_chosen(scene):
    for name in ENGINES:
        scene.kinora.engine = name
        settings = scene.kinora.job_settings()
        assert settings.engine == name
        assert type(settings.engine_settings) is ENGINES[name].settings


def test_an_untouched_panel_asks_for_the_default_job(scene):
    assert scene.kinora.job_settings() == JobSettings()


def test_settings_come_back_exactly_from_the_panel(scene):
    """Blender keeps 32-bit floats; 0.1 must not become 0.10000000149, or the job would be another one."""
    chosen = LensSettings(focal_mm=35.3, sensor_width_mm=23.76, k1=-0.1, k2=0.017)
    write_group(scene.kinora.lens, chosen)
    assert read_group(LensSettings, scene.kinora.lens) == chosen
    assert scene.kinora.job_settings().lens == chosen


def test_settings_are_kept_in_the_file(scene, tmp_path):
    scene.kinora.lens.focal_mm = 50
    scene.kinora.clip_path = "//street.mp4"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    kinora = bpy.context.scene.kinora
    assert (kinora.lens.focal_mm, kinora.clip_path) == (50, "//street.mp4")
    assert kinora.output() == tmp_path / "kinora" / "street"  # beside the .blend


def test_frames_out_of_order_are_refused(scene):
    scene.kinora.clip.first_frame, scene.kinora.clip.last_frame = 10, 5
    with pytest.raises(UserError, match="before the first"):
        scene.kinora.job_settings()


def test_output_goes_beside_the_clip_and_never_over_something(scene, clip):
    assert scene.kinora.output() is None
    scene.kinora.clip_path = str(clip)
    first = scene.kinora.output()
    assert first == clip.parent / "kinora" / "street"
    first.mkdir(parents=True)
    assert scene.kinora.output() == first  # empty: still free
    (first / "capture.json").touch()
    assert scene.kinora.output() == first.with_name("street_002")
    scene.kinora.replace = True
    assert scene.kinora.output() == first
    scene.kinora.output_path = str(clip.parent / "chosen")
    assert scene.kinora.output() == clip.parent / "chosen"


def test_missing_files_are_named(scene, tmp_path):
    with pytest.raises(UserError, match="No clip"):
        scene.kinora.source()
    scene.kinora.clip_path = str(tmp_path / "gone.mp4")
    with pytest.raises(UserError, match=r"gone\.mp4 does not exist"):
        scene.kinora.source()
    scene.kinora.masks_path = str(tmp_path / "gone")
    with pytest.raises(UserError, match="masks"):
        scene.kinora.masks()


def test_a_path_beside_an_unsaved_file_is_refused(scene):
    scene.kinora.output_path = scene.kinora.clip_path = "//shot"
    for method in (scene.kinora.output, scene.kinora.source):
        with pytest.raises(UserError, match="not saved yet; save it"):
            method()


def test_the_clip_is_described(scene, capture_folder, clip, tmp_path):
    # 4 frames of 48 x 32, written as rgb_0000.png and on
    images = tmp_path / "plate"
    images.mkdir()
    for picture in capture_folder.glob("rgb_*.png"):
        (images / picture.name).write_bytes(picture.read_bytes())
    assert lines(look(images)) == ["48 × 32", "4 frames"]
    assert lines(look(images / "rgb_0000.png")) == ["48 × 32", "4 frames"]
    assert look(clip) is None  # not a video
    assert look(Path("nowhere")) is None
    assert not bpy.data.movieclips
    scene.kinora.clip_path = str(images)
    assert scene.kinora.facts.read() == look(images)
    scene.kinora.clip_path = str(clip)
    assert scene.kinora.facts.read() is None
