"""A folder of captures: each becomes an import, side by side if wanted, and what is no capture is told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from blender_addon.scene import ImportOptions
from blender_addon.scene.batch import import_captures
from blender_addon.scene.imported import PLAYER, imported_in
from blender_addon.wire.capture import write_capture
from blender_addon.wire.errors import UserError
from tests.scene.captures import shown, small
from tests.scene.test_update import of_another_engine


@pytest.fixture
def folder(tmp_path):
    write_capture(small(2, source="/footage/a.mp4"), tmp_path / "a")
    write_capture(small(3, source="/footage/b.mp4"), tmp_path / "deeper" / "b")
    write_capture(of_another_engine(2), tmp_path / "c")
    (tmp_path / "notes").mkdir()
    broken = write_capture(small(2), tmp_path / "broken")
    (broken / "depth.npy").write_bytes(b"")
    return tmp_path


def test_every_capture_becomes_an_import_and_the_rest_is_told(folder, scene):
    fractions = []
    batch = import_captures(folder, scene, run_progress=lambda stage, fraction: fractions.append(fraction))
    assert [c.name for c in batch.collections] == ["a", "room", "b"]
    assert [one.name for one in imported_in(scene)] == ["a", "b", "room"]
    assert {path.name: why.split(":")[0].split(" ")[-1] for path, why in batch.skipped.items()} == {
        "notes": "capture",
        "broken": "damaged",
    }
    assert all(b > a - 1e-9 for a, b in itertools.pairwise(fractions))
    assert scene.camera.parent.name == "a", "the first one sets up the scene"
    assert scene.frame_end == 2


def test_side_by_side_they_do_not_overlap(folder, scene):
    import_captures(folder, scene, ImportOptions(storage="frames"), side_by_side=True)
    spans = []
    for one in imported_in(scene):
        x = shown(one.objects(PLAYER)[0])["position"][:, 0]
        spans.append(np.percentile(x, (1, 99)))
    spans.sort(key=lambda span: span[0])
    for left, right in itertools.pairwise(spans):
        assert left[1] < right[0] + 0.05 * (left[1] - left[0])


def test_again_with_update_nothing_is_doubled(folder, scene):
    import_captures(folder, scene)
    places = {one.name: one.root.matrix_world.copy() for one in imported_in(scene)}
    import_captures(folder, scene, ImportOptions(existing="update"), side_by_side=True)
    assert {one.name: one.root.matrix_world for one in imported_in(scene)} == places


def test_a_folder_without_captures_is_an_error(tmp_path, scene):
    with pytest.raises(UserError, match="There is no capture in"):
        import_captures(tmp_path, scene)
    with pytest.raises(UserError, match="is not a folder"):
        import_captures(tmp_path / "nowhere", scene)
