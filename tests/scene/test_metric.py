"""True size: an import stands in metres when its capture knows its unit, and says so when it does not."""

from __future__ import annotations

from dataclasses import replace

import bpy
import numpy as np
import pytest

import blender_addon
from blender_addon.scene import import_capture
from blender_addon.scene.imported import imported_in
from blender_addon.scene.metric import metres_per_unit
from blender_addon.scene.report import ImportReport
from blender_addon.scene.world import size_of
from blender_addon.wire.capture import MetricScale, write_capture
from tests.scene.captures import small


@pytest.fixture(autouse=True)
def addon(empty_file):
    """Its operators are what is called here."""
    blender_addon.register()
    yield
    blender_addon.unregister()


def test_a_measured_scale_stands_the_capture_at_true_size(scene, tmp_path):
    """0.8 m a unit: what was 2 units apart is 1.6 m apart, about the world's origin; Reset takes it back."""
    measured = MetricScale(0.8, 0.76, 0.84, 0.05, 9, "MASt3R")
    import_capture(write_capture(replace(small(2), metric=False, scale=measured), tmp_path / "room"), scene)
    (imported,) = imported_in(scene)
    assert metres_per_unit(imported) == pytest.approx((0.8, 0.76, 0.84))
    bpy.context.view_layer.update()
    place = np.array(imported.root.matrix_world)
    assert bpy.ops.kinora.use_metric_scale() == {"FINISHED"}
    assert np.array(imported.root.matrix_world) == pytest.approx(np.diag([0.8, 0.8, 0.8, 1]) @ place, abs=1e-6)
    assert not bpy.ops.kinora.use_metric_scale.poll(), "it stands at true size"
    bpy.ops.kinora.set_scale(points=[(0, 0, 0), (1, 0, 0)], length=3)
    assert bpy.ops.kinora.use_metric_scale() == {"FINISHED"}
    assert size_of(np.array(imported.root.matrix_world)) == pytest.approx(0.8)
    bpy.ops.kinora.reset_world()
    assert np.array(imported.root.matrix_world) == pytest.approx(place, abs=1e-6)


def test_true_size_follows_the_units_of_the_scene(scene, tmp_path):
    scene.unit_settings.scale_length = 0.01  # a Blender unit is a centimetre
    import_capture(write_capture(small(2), tmp_path / "room"), scene)
    assert bpy.ops.kinora.use_metric_scale() == {"FINISHED"}
    assert size_of(np.array(imported_in(scene)[0].root.matrix_world)) == pytest.approx(100)


def test_a_capture_without_a_scale_says_so_until_it_was_measured_and_updated(scene, tmp_path):
    folder = write_capture(replace(small(2), metric=False), tmp_path / "room")
    import_capture(folder, scene)
    assert not bpy.ops.kinora.use_metric_scale.poll()
    measured = replace(small(2), metric=False, scale=MetricScale(2.0, 1.8, 2.2, 0.1, 5, "MASt3R"))
    write_capture(measured, folder, replace=True)
    bpy.ops.kinora.update_capture()
    assert bpy.ops.kinora.use_metric_scale() == {"FINISHED"}
    assert size_of(np.array(imported_in(scene)[0].root.matrix_world)) == pytest.approx(2.0)


def test_a_known_length_works_on_metric_captures(scene, tmp_path):
    import_capture(write_capture(small(2), tmp_path / "room"), scene)
    bpy.ops.kinora.set_scale(points=[(0, 0, 0), (2, 0, 0)], length=1)
    (imported,) = imported_in(scene)
    assert size_of(np.array(imported.root.matrix_world)) == pytest.approx(0.5)
    assert bpy.ops.kinora.use_metric_scale() == {"FINISHED"}, "and the way back is there"
    assert size_of(np.array(imported.root.matrix_world)) == pytest.approx(1.0)


@pytest.mark.parametrize("allowed", [True, False])
def test_weights_that_only_measured_the_scale_are_told_of(scene, tmp_path, allowed):
    measured = MetricScale(0.8, 0.76, 0.84, 0.05, 9, "mast3r", ({"name": "mast3r", "commercial_use": allowed},))
    import_capture(write_capture(replace(small(2), metric=False, scale=measured), tmp_path / "room"), scene)
    report = ImportReport.read(imported_in(scene)[0].root)
    assert report.commercial_use
    told = "Its scale was measured with weights of mast3r: not for commercial use"
    assert (told in report.notes) is not allowed
