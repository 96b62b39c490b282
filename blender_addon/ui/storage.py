"""Storage: how the points of an import are kept, and turning one way into another."""

# Annotations must stay objects here: Blender reads the properties from them.
import contextlib
from pathlib import Path

import bpy

from ..scene import nodes, projection, storage
from ..scene.imported import LINKED, PROJECTED, ROLE, Imported
from ..scene.projector import project_plate
from ..scene.steps import Steps, finish
from ..scene.storage_files import blender_path
from ..scene.stored import LABELS, Stored, find_storage, problems, storages
from .acting import ImportOperator, ImportPanel
from .players import draw_input
from .text import draw_wrapped

KINDS = [
    ("embedded", LABELS["embedded"], "Every point in the .blend: plays fastest, and the file is all that is needed"),
    (
        "linked",
        LABELS["linked"],
        "A PLY file a frame beside the .blend, read when its frame is shown: for long clips and small .blend files",
    ),
    (
        "projected",
        LABELS["projected"],
        "The plate and its depth as picture sequences beside the .blend, put before the camera: as points, or as a "
        "mesh that hides CG, catches its shadows or carries the plate",
    ),
]
USES = [
    (projection.POINTS, "Points", "A point for each pixel", "POINTCLOUD_DATA", 0),
    (projection.MESH, "Mesh", "A surface in the plate's colors, torn where depth jumps", "MESH_DATA", 1),
    (
        projection.HOLDOUT,
        "Holdout",
        "The surface cuts out CG that is behind it; render with a transparent film",
        "HOLDOUT_ON",
        2,
    ),
    (
        projection.CATCHER,
        "Shadow Catcher",
        "The surface only shows the shadows that CG throws on it (Cycles); render with a transparent film",
        "SHADING_RENDERED",
        3,
    ),
    (
        projection.PROJECTION,
        "Camera Projection",
        "The surface carries the pictures as the camera projects them. The material works on any other object too. It "
        "follows the scene's frame, not Speed and Clip Frame",
        "VIEW_CAMERA",
        4,
    ),
]

#: Inputs that say what a player is made of, and those that only matter to a mesh.
HIDDEN = {"Length", "Clip Rate", "Depth", "Plate", "Width", "Height", "Root", "Surface"}
FOR_MESH, FOR_POINTS = {"Max Step"}, {"Point Size", "Radius", "Solid Colors"}


def with_cursor(context, steps: Steps[Stored]) -> Stored:
    """Run steps to their end, with their progress at the mouse cursor."""
    manager = context.window_manager
    manager.progress_begin(0, 100)
    try:
        return finish(steps, lambda stage, fraction: manager.progress_update(100 * fraction))
    finally:
        manager.progress_end()


def make_active(context, stored: Stored) -> None:
    """Select what was made, so that the import stays the one that is meant."""
    for ob in context.selected_objects:
        ob.select_set(False)
    for ob in stored.players:
        with contextlib.suppress(RuntimeError):  # in a collection that this view layer excludes
            ob.select_set(True)
            context.view_layer.objects.active = ob


def megabytes(count: int) -> str:
    """'0.4 MB', '920 MB', '1.2 GB'."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


class MakingStorage(ImportOperator):
    """What adding and converting ask for."""

    split: bpy.props.BoolProperty(
        name="Static and Moving",
        description="For Embedded: keep what stands still once, merged from all frames, and only what moves by frame",
        default=True,
    )
    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where the folder of the files is made. Empty is beside the .blend, or beside the capture "
        "while that is not saved",
        subtype="DIR_PATH",
    )

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "kind")
        layout.prop(self, *(("split",) if self.kind == "embedded" else ("directory",)))


class KINORA_OT_add_storage(MakingStorage, bpy.types.Operator):
    """Keep the points of the capture in one more way, on the same root and with the same settings"""

    bl_idname = "kinora.add_storage"
    bl_label = "Add Storage"

    kind: bpy.props.EnumProperty(name="Storage", description="How the points are kept", items=KINDS, default="linked")

    def act_on(self, context, imported):
        made = with_cursor(context, storage.add_storage(imported, self.kind, self.split, self.directory))
        make_active(context, made)
        return f"Added {LABELS[self.kind]} points: {megabytes(made.bytes)}"


class KINORA_OT_convert_storage(MakingStorage, bpy.types.Operator):
    """Keep the points in another way. Root, material, filters, retiming and what hangs on the points stay; files too"""

    bl_idname = "kinora.convert_storage"
    bl_label = "Convert Storage"

    source: bpy.props.EnumProperty(name="From", description="The storage that goes", items=KINDS, default="embedded")
    kind: bpy.props.EnumProperty(
        name="Storage",
        description="The storage that comes; the same one again makes it anew from the capture",
        items=KINDS,
        default="linked",
    )

    def act_on(self, context, imported):
        steps = storage.convert_storage(imported, self.source, self.kind, self.split, self.directory)
        made = with_cursor(context, steps)
        make_active(context, made)
        return f"{LABELS[self.source]} points are {LABELS[self.kind]} now: {megabytes(made.bytes)}"


class KINORA_OT_remove_storage(ImportOperator, bpy.types.Operator):
    """Remove this way of keeping the points, and nothing else"""

    bl_idname = "kinora.remove_storage"
    bl_label = "Remove Storage"

    kind: bpy.props.EnumProperty(name="Storage", description="The storage that goes", items=KINDS, default="linked")
    delete_files: bpy.props.BoolProperty(
        name="Delete Files",
        description="Delete its files on the disk too, which cannot be undone; other .blend files may use them",
        default=False,
    )

    def act_on(self, context, imported):
        storage.remove_storage(imported, self.kind, self.delete_files)
        return f"Removed the {LABELS[self.kind]} points"


class KINORA_OT_projected_use(ImportOperator, bpy.types.Operator):
    """What the depth-projected pixels are used for"""

    bl_idname = "kinora.projected_use"
    bl_label = "Use Depth-Projected"

    use: bpy.props.EnumProperty(name="Use", description="What the pixels are used for", items=USES, default="mesh")

    @classmethod
    def allowed_on(cls, context, imported):
        return "" if imported.objects(PROJECTED) else "Add Depth-Projected points first"

    def act_on(self, context, imported):
        for ob in find_storage(imported, PROJECTED).players:
            projection.set_use(imported, ob, self.use)


class KINORA_OT_project_plate(ImportOperator, bpy.types.Operator):
    """Project the capture's pictures on the selected meshes from its camera."""

    bl_idname = "kinora.project_plate"
    bl_label = "Project Plate on Selected"
    bl_description = (
        "Project the capture's pictures, as they are, on the selected meshes from its camera. This replaces "
        "the active material of each mesh and needs no UV map"
    )

    hold: bpy.props.BoolProperty(
        name="Hold",
        description="Keep what is projected at the current frame, from a camera that stays there: for a set that is "
        "still. Otherwise the projection moves with the camera and shows each frame's picture",
        default=True,
    )

    @classmethod
    def allowed_on(cls, context, imported):
        return "" if cls.targets(context) else "Select the meshes to project on"

    @staticmethod
    def targets(context) -> list[bpy.types.Object]:
        return [ob for ob in context.selected_objects if ob.type == "MESH" and ob.get(ROLE) is None]

    def act_on(self, context, imported):
        targets = self.targets(context)
        project_plate(imported, targets, context.scene.frame_current, self.hold)
        return f"The plate is on {len(targets)} object{'s' if len(targets) != 1 else ''}"


class KINORA_PT_storage(ImportPanel, bpy.types.Panel):
    """The storages of the import, each with what it takes, what is wrong with it, and what it can become."""

    bl_label = "Storage"
    bl_idname = "KINORA_PT_storage"
    bl_order = 12

    def draw_import(self, context, imported: Imported) -> None:
        layout = self.layout
        there = storages(imported)
        missing = [kind for kind in LABELS if kind not in [stored.kind for stored in there]]
        for stored in there:
            draw_storage(layout, context, stored, missing)
        if missing:
            column = layout.column(align=True)
            column.label(text="Add")
            for kind in missing:
                column.operator("kinora.add_storage", text=LABELS[kind], icon="ADD").kind = kind
        layout.operator("kinora.project_plate", icon="VIEW_CAMERA")


def draw_storage(layout, context, stored: Stored, others: list[str]) -> None:
    """One storage, and the nodes of those that the panel Points does not show."""
    header, body = layout.panel(f"KINORA_storage_{stored.kind}")
    header.label(text=f"{LABELS[stored.kind]}, {megabytes(stored.bytes)}")
    if len(stored.players) == 1:
        header.prop(stored.players[0], "hide_viewport", text="", emboss=False)
        header.prop(stored.players[0], "hide_render", text="", emboss=False)
    header.operator("kinora.remove_storage", text="", icon="X", emboss=False).kind = stored.kind
    for problem in problems(stored):
        alert = layout.column()
        alert.alert = True
        draw_wrapped(alert, context, problem, icon="ERROR")
    if body is None:
        return
    column = body.column(align=True)
    for kind in others:
        convert = column.operator("kinora.convert_storage", text=f"Convert to {LABELS[kind]}")
        convert.source, convert.kind = stored.kind, kind
    again = column.operator("kinora.convert_storage", text="Make Again from Capture", icon="FILE_REFRESH")
    again.source = again.kind = stored.kind
    for ob in stored.players if stored.files else ():
        draw_player(body, ob, stored.kind)


def draw_player(layout, ob: bpy.types.Object, kind: str) -> None:
    """The use of a depth-projected object, and the inputs of a player of files in the sections of its node group."""
    hidden = HIDDEN
    if kind == PROJECTED:
        use = projection.use_of(ob)
        label = next(label for name, label, *_ in USES if name == use)
        layout.operator_menu_enum("kinora.projected_use", "use", text=f"Use: {label}", icon="MESH_GRID")
        hidden = HIDDEN | (FOR_MESH if use == projection.POINTS else FOR_POINTS)
    modifier = nodes.find_modifier(ob)
    section = None
    for name, parent in nodes.sections(modifier) if modifier else ():
        if name in hidden:
            continue
        if parent and parent != section:
            layout.label(text=parent)
        section = parent
        row = layout.row(align=True)
        row.active = name != "Clip Frame" or bool(nodes.get_input(modifier, "Use Clip Frame"))
        draw_input(row, modifier, name)
        if name == "Clip Frame":
            row.operator("kinora.key_clip_frame", text="", icon="KEY_HLT").player = ob.name


@bpy.app.handlers.persistent
def keep_folders(blend_file: str, *_: object) -> None:
    """Before a file is saved: have the folders of linked points lead where they do, from where the file will be.

    Blender does so for pictures and clips by itself, but not for a path that is an input of nodes.
    """
    _folders.clear()
    for ob in bpy.data.objects:
        modifier = nodes.find_modifier(ob) if ob.get(ROLE) == LINKED else None
        if modifier is not None and ob.library is None:
            _folders[ob.session_uid] = folder = Path(bpy.path.abspath(nodes.get_input(modifier, "Folder")))
            nodes.set_input(modifier, "Folder", blender_path(folder, blend_file))


@bpy.app.handlers.persistent
def restore_folders(*_: object) -> None:
    """After a copy was saved elsewhere: what is open stays where it is."""
    for ob in bpy.data.objects:
        if ob.session_uid in _folders:
            nodes.set_input(nodes.find_modifier(ob), "Folder", blender_path(_folders[ob.session_uid]))
    _folders.clear()


#: Where the folders lead while a file is being saved, by object.
_folders: dict[int, Path] = {}
_HANDLERS = (("save_pre", keep_folders), ("save_post", restore_folders), ("save_post_fail", restore_folders))

CLASSES = (
    KINORA_OT_add_storage,
    KINORA_OT_convert_storage,
    KINORA_OT_remove_storage,
    KINORA_OT_projected_use,
    KINORA_OT_project_plate,
    KINORA_PT_storage,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    for event, handler in _HANDLERS:
        getattr(bpy.app.handlers, event).append(handler)


def unregister() -> None:
    for event, handler in _HANDLERS:
        getattr(bpy.app.handlers, event).remove(handler)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
