"""What holds for every operator and panel, found by inspection: a sentence, never a traceback, and it is undone."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import bpy
import pytest

from backend.export.images import add_images
from backend.wire import write_capture
from blender_addon.scene import ImportOptions, import_capture
from blender_addon.scene.imported import imported_in
from blender_addon.scene.plates import PlateOptions, import_plate
from tests.localised import localised
from tests.scene.captures import small
from tests.scene.test_update import fingerprint

from .test_panels import Recorder, in_sidebar

#: Operators without an undo step, and why there is nothing in the file to undo.
WITHOUT_UNDO = {
    "backend_add": "files of this computer",
    "backend_choose": "preferences",
    "backend_edit": "files of this computer",
    "backend_forget": "files of this computer",
    "backend_pair": "files of this computer",
    "backend_start": "a process",
    "backend_stop": "a process",
    "cancel": "a job of the backend",
    "cancel_all": "jobs of the backend",
    "clear_queue": "the list of jobs is not in the file",
    "copy_own_key": "the clipboard",
    "copy_report": "the clipboard",
    "copy_setup_log": "the clipboard",
    "delete_job": "a job of the backend",
    "examine": "looks at this computer",
    "export": "writes files",
    "fetch_job": "a job of the backend",
    "get_weights": "files of the backend",
    "job_error": "shows a message",
    "job_priority": "a job of the backend",
    "jump_to_frame": "the frame that is looked at, grouped",
    "list_weights": "asks the backend",
    "localise_plate": "sends a job",
    "move_job": "a job of the backend",
    "open_preferences": "opens a window",
    "pin_job": "a job of the backend",
    "preset_add": "writes a preset",
    "reconstruct": "sends a job",
    "refresh_jobs": "asks the backend",
    "remove_job": "the list of jobs is not in the file",
    "setup_backend": "installs on this computer",
    "show_compositor": "an editor of the screen",
    "show_picture": "an editor of the screen",
    "setup_cancel": "a process",
    "write_st_maps": "writes files",
}

#: Operators that start processes, ask the network or open windows: they are polled here and run in their own tests.
NOT_RUN = {
    "backend_start",
    "examine",
    "get_weights",
    "list_weights",
    "open_preferences",
    "preset_add",
    "reconstruct",
    "setup_backend",
}

#: What Blender says when an operator's poll gives no reason.
NO_REASON = re.compile(r"context is incorrect\s*$")


def names() -> list[str]:
    return [name for name in dir(bpy.ops.kinora) if not name.startswith("_")]


def cls_of(name: str) -> type[bpy.types.Operator]:
    return getattr(bpy.types, f"KINORA_OT_{name}")


# ---- what an artist reads ------------------------------------------------------------------------------------------


def test_every_operator_of_the_code_is_registered_and_known(addon):
    ours = {
        cls
        for cls in bpy.types.Operator.__subclasses__()
        if cls.__module__.startswith("blender_addon.") and hasattr(cls, "bl_idname")
    }
    assert {cls.bl_idname.split(".")[1] for cls in ours} == set(names())
    assert len(names()) > 20


def test_every_operator_has_a_label_a_tooltip_and_properties_with_both(addon):
    problems = []
    for name in names():
        rna = getattr(bpy.ops.kinora, name).get_rna_type()
        if not rna.name or not rna.name[0].isupper():
            problems.append(f"{name}: label {rna.name!r}")
        if len(rna.description) < 10 or rna.description.endswith(".") or "\n" in rna.description:
            problems.append(f"{name}: tooltip {rna.description!r}")
        for prop in rna.properties:
            hidden = prop.is_hidden or prop.identifier in ("rna_type", "filter_glob", "filepath", "directory", "files")
            if not hidden and (not prop.description or prop.description.endswith(".")):
                problems.append(f"{name}.{prop.identifier}: tooltip {prop.description!r}")
    assert not problems, "\n".join(problems)


def test_every_operator_can_be_undone_or_has_nothing_to_undo(addon):
    without = {name for name in names() if "UNDO" not in getattr(cls_of(name), "bl_options", set())}
    assert without <= WITHOUT_UNDO.keys(), without - WITHOUT_UNDO.keys()


def test_every_operator_works_from_a_script(addon):
    """It has an `execute`, and asks nothing of the event that it is called with."""
    for name in names():
        assert "execute" in dir(cls_of(name)), name
        assert "event" not in inspect.signature(cls_of(name).execute).parameters, name


# ---- states that an operator may be called in ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    return write_capture(small(3), tmp_path_factory.mktemp("every") / "room", [add_images])


def nothing(capture, tmp_path):
    """A scene without anything."""


def an_import(capture, tmp_path):
    """One import, its camera active."""
    import_capture(capture, bpy.context.scene, ImportOptions(storage="split"))
    bpy.context.view_layer.objects.active = imported_in(bpy.context.scene)[0].camera


def no_active_object(capture, tmp_path):
    an_import(capture, tmp_path)
    bpy.context.view_layer.objects.active = None


def two_imports_and_none_meant(capture, tmp_path):
    an_import(capture, tmp_path)
    import_capture(capture, bpy.context.scene)
    bpy.context.view_layer.objects.active = None


def a_plate_camera(capture, tmp_path):
    """A plate was localised in the import; its camera is active, and its capture is gone from the disk."""
    an_import(capture, tmp_path)
    folder = write_capture(localised(3, lost=(1,)), tmp_path / "plate", [add_images])
    camera = import_plate(folder, imported_in(bpy.context.scene)[0], bpy.context.scene, PlateOptions(points=True))
    bpy.context.view_layer.objects.active = camera
    shutil.rmtree(folder)


def deleted_root(capture, tmp_path):
    an_import(capture, tmp_path)
    bpy.data.objects.remove(imported_in(bpy.context.scene)[0].root)


def deleted_objects(capture, tmp_path):
    """Only the root is left."""
    an_import(capture, tmp_path)
    root = imported_in(bpy.context.scene)[0].root
    for ob in [ob for ob in bpy.context.scene.objects if ob != root]:
        bpy.data.objects.remove(ob)
    bpy.context.view_layer.objects.active = root


def deleted_modifiers(capture, tmp_path):
    an_import(capture, tmp_path)
    for ob in bpy.context.scene.objects:
        ob.modifiers.clear()


def deleted_animation(capture, tmp_path):
    an_import(capture, tmp_path)
    camera = imported_in(bpy.context.scene)[0].camera
    camera.animation_data_clear()
    camera.data.animation_data_clear()


def moved_capture(capture, tmp_path):
    copy = Path(shutil.copytree(capture, tmp_path / "copy"))
    an_import(copy, tmp_path)
    copy.rename(tmp_path / "moved")


def cut_capture(capture, tmp_path):
    copy = Path(shutil.copytree(capture, tmp_path / "copy"))
    an_import(copy, tmp_path)
    (copy / "depth.npy").write_bytes(b"")


def renamed_collections(capture, tmp_path):
    an_import(capture, tmp_path)
    for i, collection in enumerate(bpy.data.collections):
        collection.name = f"renamed {i}"
    for i, ob in enumerate(bpy.context.scene.objects):
        ob.name = f"other {i}"


def deleted_collection(capture, tmp_path):
    """The artist keeps the objects in a collection of their own."""
    an_import(capture, tmp_path)
    mine = bpy.data.collections.new("Mine")
    bpy.context.scene.collection.children.link(mine)
    for ob in list(bpy.context.scene.objects):
        mine.objects.link(ob)
    bpy.data.collections.remove(imported_in(bpy.context.scene)[0].collection)


def another_scene(capture, tmp_path):
    """The import is in a scene that is not looked at."""
    an_import(capture, tmp_path)
    bpy.context.window.scene = bpy.data.scenes.new("Other")


def edit_mode(capture, tmp_path):
    """The artist edits a mesh that follows the camera of an import."""
    an_import(capture, tmp_path)
    mesh = bpy.data.meshes.new("Mesh")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    ob = bpy.data.objects.new("Mesh", mesh)
    bpy.context.scene.collection.objects.link(ob)
    ob.parent = imported_in(bpy.context.scene)[0].camera
    bpy.context.view_layer.objects.active = ob


STATES = (
    nothing,
    an_import,
    a_plate_camera,
    no_active_object,
    two_imports_and_none_meant,
    deleted_root,
    deleted_objects,
    deleted_modifiers,
    deleted_animation,
    moved_capture,
    cut_capture,
    renamed_collections,
    deleted_collection,
    another_scene,
    edit_mode,
)


@pytest.fixture
def enter(addon, capture, tmp_path, home):
    """`enter(state)`: the state in a saved file, as often as it is called; made once."""
    saved = tmp_path / "state.blend"

    def enter(state) -> None:
        if not saved.exists():
            state(capture, tmp_path)
            bpy.ops.wm.save_as_mainfile(filepath=str(saved))
        else:
            bpy.ops.wm.open_mainfile(filepath=str(saved))
        if state is edit_mode:
            bpy.ops.object.mode_set(mode="EDIT")
            assert bpy.context.mode == "EDIT_MESH"

    return enter


def call(name: str) -> tuple[set[str], str]:
    """What the operator returns, and the text of its error."""
    try:
        return getattr(bpy.ops.kinora, name)("EXEC_DEFAULT"), ""
    except RuntimeError as error:
        return {"CANCELLED"}, str(error)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_no_operator_fails_but_with_a_sentence(state, enter, capfd, caplog):
    enter(state)
    problems = []
    for name in names():
        capfd.readouterr()
        caplog.clear()
        possible = getattr(bpy.ops.kinora, name).poll()
        if name in NOT_RUN and possible:
            continue
        result, error = call(name)
        printed = "".join(capfd.readouterr())
        if "Traceback" in printed + error or any(record.exc_info for record in caplog.records):
            trace = printed + error + "".join(record.exc_text or "" for record in caplog.records)
            problems.append(f"{name}: {trace.strip()[-600:]}")
        elif "error of Kinora" in error:
            problems.append(f"{name}: {error}")
        elif not possible and NO_REASON.search(error):
            problems.append(f"{name}: greyed out without a reason: {error}")
        elif not result <= {"FINISHED", "CANCELLED"}:
            problems.append(f"{name}: returned {result}")
        elif result == {"CANCELLED"} and not error:
            problems.append(f"{name}: gave up without a word")
        if result == {"FINISHED"}:
            enter(state)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
def test_what_an_operator_did_is_undone(enter, capfd):
    """One step back, and the import is what it was."""
    problems, done = [], []
    for name in names():
        if name in WITHOUT_UNDO:
            continue
        enter(a_plate_camera)
        bpy.ops.ed.undo_push(message="Before")
        before = fingerprint(bpy.context.scene)
        if call(name)[0] != {"FINISHED"}:
            continue
        done.append(name)
        bpy.ops.ed.undo_push(message=name)
        bpy.ops.ed.undo()
        after = fingerprint(bpy.context.scene)
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        if changed:
            problems.append(f"{name}: {changed[:5]}")
    assert not problems, "\n".join(problems)
    assert {"remove_import", "update_capture", "use_relative_paths", "remove_plate", "view_plate"} <= set(done)


# ---- panels ----------------------------------------------------------------------------------------------------------


class Drawn:
    """Stands for a panel or menu that is drawn: its own methods, and a recorder for a layout."""

    def __init__(self, cls: type, layout: Recorder) -> None:
        self._cls, self.layout = cls, layout

    def __getattr__(self, name):
        found = inspect.getattr_static(self._cls, name)
        return found.__get__(self, self._cls) if hasattr(found, "__get__") else found


def ours(kind: type) -> list[type]:
    """The registered classes of the add-on of that kind."""
    found = {getattr(bpy.types, name) for name in dir(bpy.types) if name.startswith("KINORA_")}
    return sorted((cls for cls in found if issubclass(cls, kind)), key=lambda cls: cls.__name__)


def drawn(cls: type, context) -> str:
    seen: list[str] = []
    if not hasattr(cls, "poll") or cls.poll(context):
        panel = Drawn(cls, Recorder(seen))
        for method in ("draw_header", "draw_header_preset", "draw"):
            if hasattr(cls, method):
                getattr(panel, method)(context)
    return " ".join(seen)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_panel_draws(state, enter):
    enter(state)
    with in_sidebar():
        panels = [cls for cls in ours(bpy.types.Panel) if cls.bl_space_type == "VIEW_3D"]
        assert len(panels) > 10
        for cls in panels:
            drawn(cls, bpy.context)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (an_import, "[Update]"),
        (moved_capture, "[Relink Capture]"),
        (cut_capture, "[Update]"),
        (deleted_objects, "[Remove Import]"),
    ],
)
def test_the_panel_of_an_import_offers_what_helps(state, says, enter):
    enter(state)
    with in_sidebar():
        text = drawn(bpy.types.KINORA_PT_import_source, bpy.context)
    assert says.replace("Remove Import", "") in text
    assert ("is not where it was" in text) == (state is moved_capture)
