"""A capture that was moved is found again, another one is refused, and paths beside the .blend travel with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import pytest

from backend.export.images import add_images
from blender_addon.scene import ImportOptions, import_capture
from blender_addon.scene.imported import Imported, imported_in
from blender_addon.scene.paths import make_relative, paths_of
from blender_addon.scene.relink import find_nearby, relink
from blender_addon.scene.steps import finish
from blender_addon.scene.storage import LINKED, add_storage
from blender_addon.scene.strips import add_strips
from blender_addon.wire.capture import write_capture
from blender_addon.wire.errors import UserError
from tests.scene.captures import small
from tests.scene.test_update import of_another_engine


@pytest.fixture
def capture(tmp_path) -> Path:
    return write_capture(small(3), tmp_path / "shots" / "kinora" / "room", [add_images])


@pytest.fixture
def imported(capture, scene) -> Imported:
    import_capture(capture, scene)
    (found,) = imported_in(scene)
    return found


def missing(imported: Imported) -> list[Path]:
    """The paths of an import that lead nowhere."""
    return [path.absolute for path in paths_of(imported.root) if not path.absolute.exists()]


def test_all_paths_are_known(imported, capture):
    paths = {path.absolute for path in paths_of(imported.root)}
    assert {capture, capture / "rgb_0000.png", capture / "depth_0000.png"} <= paths
    assert not missing(imported)


def test_a_moved_capture_is_relinked_with_all_its_pictures(imported, capture, tmp_path):
    finish(add_storage(imported, LINKED))
    add_strips(imported, bpy.context.scene, ("Mask",))
    moved = tmp_path / "elsewhere" / "kinora"
    shutil.move(capture.parent, moved)
    assert len(missing(imported)) >= 6
    with pytest.raises(UserError, match="Relink Capture"):
        imported.capture()
    assert relink(imported, moved / "room") == len(paths_of(imported.root))
    assert not missing(imported)
    assert imported.capture().folder == moved / "room"
    assert bpy.data.images["room Mask"].size[0] > 0
    (strip,) = bpy.context.scene.sequence_editor.strips
    assert Path(strip.directory) == moved / "room"
    assert relink(imported, moved / "room") == 0


def test_another_capture_is_refused_with_a_hint(imported, tmp_path):
    other = write_capture(of_another_engine(3), tmp_path / "other", [add_images])
    before = [path.read() for path in paths_of(imported.root)]
    with pytest.raises(UserError, match=r"another capture.*use Update"):
        relink(imported, other)
    with pytest.raises(UserError, match="is not a capture"):
        relink(imported, tmp_path)
    assert [path.read() for path in paths_of(imported.root)] == before


def test_what_the_artist_linked_stays(imported, capture, tmp_path):
    image = bpy.data.images.load(str(capture / "rgb_0001.png"))
    moved = tmp_path / "moved"
    capture.rename(moved)
    relink(imported, moved)
    assert image.filepath == str(capture / "rgb_0001.png")


def test_a_blend_carried_with_its_capture_finds_everything(capture, scene, tmp_path):
    """Preferences ask for relative paths by default, and an import into a saved file follows them."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shots" / "shot.blend"))
    import_capture(capture, bpy.context.scene)
    (found,) = imported_in(bpy.context.scene)
    assert all(path.read().startswith("//") for path in paths_of(found.root))
    bpy.ops.wm.save_mainfile()
    (tmp_path / "shots").rename(tmp_path / "carried")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "carried" / "shot.blend"))
    (found,) = imported_in(bpy.context.scene)
    assert not missing(found)
    assert found.capture().folder == tmp_path / "carried" / "kinora" / "room"


def test_absolute_paths_stay_where_the_preferences_want_them(capture, scene, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shots" / "shot.blend"))
    bpy.context.preferences.filepaths.use_relative_paths = False
    try:
        import_capture(capture, bpy.context.scene)
        (found,) = imported_in(bpy.context.scene)
        assert not any(path.read().startswith("//") for path in paths_of(found.root))
        count = len(paths_of(found.root))
        assert make_relative(found.root) == count
        assert make_relative(found.root) == 0
        assert not missing(found)
    finally:
        bpy.context.preferences.filepaths.use_relative_paths = True


def test_a_capture_beside_the_blend_is_found_without_asking(imported, capture, tmp_path):
    (tmp_path / "carried").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "carried" / "shot.blend"))
    (found,) = imported_in(bpy.context.scene)
    shutil.move(capture.parent, tmp_path / "carried" / "kinora")
    write_capture(of_another_engine(3), tmp_path / "carried" / "room", [add_images])
    assert find_nearby(found) == tmp_path / "carried" / "kinora" / "room"
    relink(found, find_nearby(found))
    assert not missing(found)


def test_an_update_keeps_paths_relative(capture, scene, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shots" / "shot.blend"))
    import_capture(capture, bpy.context.scene)
    other = write_capture(of_another_engine(3), tmp_path / "shots" / "other", [add_images])
    import_capture(other, bpy.context.scene, ImportOptions(existing="update"))
    (found,) = imported_in(bpy.context.scene)
    assert {path.read() for path in paths_of(found.root)} >= {"//other", "//other/rgb_0000.png"}
    assert not missing(found)
