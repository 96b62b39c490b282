"""The live view of a job: a collection whose player and camera grow frame by frame and play at any time.

Nothing is remembered outside the file: every frame's object says what was shown of it, so that undo, saving, and other
hands in the file do no harm. The view is made by its first frame, and gives way to the import of the finished capture.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ..wire.live import LiveFrame, about
from . import nodes
from .attributes import CLIP_FRAME, COLOR, DYNAMIC, PIXEL_ANGLE
from .camera import key_path
from .camera_path import CameraPath, continuous
from .conventions import BLENDER_FROM_CAPTURE, OPENCV_FROM_BLENDER_CAMERA, blender_lens
from .imported import Imported
from .materials import point_material
from .points import FRAME, CloudFactory, frame_name, frame_object

#: Properties of the datablocks of a live view: of which job, and what each is.
TICKET, ROLE = "kinora_live", "kinora_live_role"
#: On the root: where the view put it.
PLACE = "kinora_live_place"
#: On the collection: scene frame of the first frame, where the capture will be, and that there will be none.
START, FOLDER, PARTIAL = "kinora_live_start", "kinora_live_folder", "kinora_live_partial"
#: On the collection: width and height of the plate.
PLATE = "kinora_live_plate"
#: On the collection: of which footage, by which engine and with which settings, as text.
FACTS = "kinora_live_facts"
#: On the frames' collection: attempt and world that they belong to.
ORIGIN = "kinora_live_origin"
#: On a frame's object, in one row of numbers: clip frame, spacing, plate intrinsics, world_from_camera and the rotation
#: of Blender's camera; and what the frame is of, as text.
SHOWN, TEXT = "kinora_live_shown", "kinora_live_text"
_NUMBERS = 26

SENSOR_MM = 36.0
#: The memory of a streaming engine is shown in this colour, its places so many points wide.
MEMORY_COLOUR, MEMORY_SIZE = (255, 140, 26), 4.0
#: Time of a point of the carrier that stands for no frame yet.
_NEVER = 1e9
_ROOM = 64  # the carrier grows by doubling from here


@dataclass(frozen=True)
class LiveView:
    """The live view of a job in this file. It holds on to datablocks: make one when it is needed and let it go."""

    collection: bpy.types.Collection
    frames: bpy.types.Collection

    def _find(self, role: str) -> bpy.types.Object | None:
        found = (ob for ob in self.collection.all_objects if ob.get(ROLE) == role)
        return next((ob for ob in found if ob.get(TICKET) == self.ticket), None)

    @property
    def ticket(self) -> str:
        return self.collection[TICKET]

    @property
    def root(self) -> bpy.types.Object | None:
        return self._find("root")

    @property
    def camera(self) -> bpy.types.Object | None:
        return self._find("camera")

    @property
    def player(self) -> bpy.types.Object | None:
        return self._find("player")

    @property
    def shown(self) -> list[int]:
        """The frames of the capture that are shown, in order."""
        return sorted(ob[FRAME] for ob in self.frames.objects if FRAME in ob)

    @property
    def first_frame(self) -> int:
        """The scene frame at which the first of the frames that are shown plays."""
        return int(self.collection[START] + min(ob[SHOWN][0] for ob in self.objects_of_frames()))

    @property
    def partial(self) -> bool:
        """The job ended without a capture."""
        return bool(self.collection.get(PARTIAL))

    @property
    def moved(self) -> bool:
        """The artist has moved, turned or scaled it."""
        root = self.root
        return root is not None and not np.allclose(np.array(root.matrix_basis).ravel(), root[PLACE], atol=1e-6)

    @property
    def facts(self) -> dict[str, Any]:
        """What the job is: `source`, `engine`, `settings`; nothing of a view that was made without."""
        return json.loads(self.collection.get(FACTS, "{}"))

    def append(self, live: LiveFrame, attempt: int = 0, *, settle: bool = True) -> bool:
        """Show a frame, or show it anew; False when it is of an attempt or a world that is over.

        Several can be appended without `settle`: the player and the camera know them after the last one has settled.
        """
        origin = (attempt, live.world)
        if origin < tuple(self.frames[ORIGIN]):
            return False
        if origin > tuple(self.frames[ORIGIN]):
            _remove_frames(self.frames)
            self.frames[ORIGIN] = origin
        name = frame_name(self.frames.name, live.frame)
        with CloudFactory() as factory:
            if len(self.frames.objects):  # often of the same size
                factory.borrow(self.frames.objects[-1].data)
            cloud = factory.new(name, live.points, **{COLOR: live.colours, DYNAMIC: live.dynamic})
            ob = next((ob for ob in self.frames.objects if ob.get(FRAME) == live.frame), None)
            if ob is None:
                ob = frame_object(name, live.frame, cloud)
                ob[TICKET], ob[ROLE] = self.ticket, "frame"
                _write(ob, live)
                self.frames.objects.link(ob)
            else:
                earlier, ob.data = ob.data, cloud
                bpy.data.pointclouds.remove(earlier)
                _write(ob, live)
            if len(live.pointers):
                self._remember(live, factory)
        self._show_depth(live)
        if settle:
            self.settle()
        return True

    def settle(self) -> None:
        """Have the player and the camera know every frame that there is."""
        table = self._table()
        if len(table):
            self._retime(table)
            self._rekey(table)

    def read(self, ob: bpy.types.Object) -> LiveFrame:
        """What was shown by the object of a frame. Raises LookupError when it does not say what it is of."""
        row = np.array(ob[SHOWN], np.float64)
        clip, of_frames, grid = about(ob[TEXT])
        count = len(ob.data.points)
        points, colours, dynamic = (
            np.empty(3 * count, np.float32),
            np.empty(4 * count, np.float32),
            np.empty(count, bool),
        )
        if count:
            ob.data.attributes["position"].data.foreach_get("vector", points)
            ob.data.attributes[COLOR].data.foreach_get("color_srgb", colours)
            ob.data.attributes[DYNAMIC].data.foreach_get("value", dynamic)
        return LiveFrame(
            frame=ob[FRAME],
            clip_frame=int(row[0]),
            plate_size=clip.plate_size if clip is not None else (1, 1),
            world_from_camera=row[6:22].reshape(4, 4),
            plate_intrinsics=row[2:6],
            points=points.reshape(-1, 3),
            colours=np.round(255 * colours.reshape(-1, 4)[:, :3]).astype(np.uint8),
            dynamic=dynamic,
            spacing=row[1],
            clip=clip,
            of_frames=of_frames,
            grid=grid,
        )

    def objects_of_frames(self) -> list[bpy.types.Object]:
        """The objects of the frames that are shown, in order."""
        return sorted((ob for ob in self.frames.objects if SHOWN in ob and TEXT in ob), key=lambda ob: ob[FRAME])

    def _remember(self, live: LiveFrame, factory: CloudFactory) -> None:
        """Show what a streaming engine's memory knew after a frame, unless a later one has been shown."""
        ob = self._find("memory")
        if ob is not None and ob[FRAME] > live.frame and tuple(ob[ORIGIN]) == tuple(self.frames[ORIGIN]):
            return
        distance = np.linalg.norm(live.pointers - live.world_from_camera[:3, 3], axis=1)
        cloud = factory.new(
            f"{self.frames.name.removesuffix(' Frames')} Memory",
            live.pointers,
            radius=(distance * live.spacing * MEMORY_SIZE / 2).astype(np.float32),
            **{COLOR: np.full((len(live.pointers), 3), MEMORY_COLOUR, np.uint8)},
        )
        if ob is None:
            ob = bpy.data.objects.new(cloud.name, cloud)
            ob[TICKET], ob[ROLE] = self.ticket, "memory"
            ob.hide_render = ob.hide_select = True  # a look at the work, no part of the set
            ob.parent = self.root
            material = next((m for m in bpy.data.materials if m.get(TICKET) == self.ticket), None)
            inputs = {"Point Size": 1.0, "Material": material, "Facing": live.world_from_camera[:3, 3]}
            modifier, player = nodes.add_modifier(ob, nodes.STATIC, inputs), self.player
            if player is not None and nodes.find_modifier(player) is not None:
                squares = nodes.get_input(nodes.find_modifier(player), "Solid Colors")
                nodes.set_input(modifier, "Solid Colors", squares)
            self.collection.objects.link(ob)
        else:
            earlier, ob.data = ob.data, cloud
            bpy.data.pointclouds.remove(earlier)
        ob[FRAME], ob[ORIGIN] = live.frame, tuple(self.frames[ORIGIN])

    def _table(self) -> np.ndarray:
        """(N, 26) what was shown of the frames, by frame: clip frame, spacing, fx fy cx cy, world_from_camera, and the
        rotation of Blender's camera, w x y z."""
        by_frame = sorted((ob[FRAME], ob[SHOWN]) for ob in self.frames.objects if SHOWN in ob)
        return np.array([list(row) for _, row in by_frame], np.float64).reshape(-1, _NUMBERS)

    def _retime(self, table: np.ndarray) -> None:
        """Tell the player which frames there are: its own points are their cameras, with room for more."""
        player = self.player
        if player is None:
            return
        count, carrier = len(table), player.data
        if count > len(carrier.points):
            room = _ROOM
            while room < count:
                room *= 2
            numbers = np.zeros(room, np.float32)
            with CloudFactory() as factory:
                player.data = factory.new(
                    player.name, np.zeros((room, 3), np.float32), **{CLIP_FRAME: numbers, PIXEL_ANGLE: numbers}
                )
            bpy.data.pointclouds.remove(carrier)
            carrier = player.data
        room = len(carrier.points)
        times, angles = np.full(room, _NEVER, np.float32), np.zeros(room, np.float32)
        places = np.zeros((room, 3), np.float32)
        times[:count], angles[:count] = table[:, 0], table[:, 1]
        places[:count] = table[:, 6:22].reshape(-1, 4, 4)[:, :3, 3]
        carrier.attributes["position"].data.foreach_set("vector", places.ravel())
        carrier.attributes[CLIP_FRAME].data.foreach_set("value", times)
        carrier.attributes[PIXEL_ANGLE].data.foreach_set("value", angles)
        carrier.update_tag()
        modifier = nodes.find_modifier(player)
        if modifier is not None:
            nodes.set_input(modifier, "Length", float(times[:count].max() + 1))

    def _rekey(self, table: np.ndarray) -> None:
        """Key the camera at every frame that is shown."""
        camera = self.camera
        if camera is None:
            return
        lens = blender_lens(table[:, 2:6], self.collection[PLATE], SENSOR_MM)
        key_path(
            camera,
            CameraPath(
                frames=self.collection[START] + table[:, 0],
                location=table[:, 6:22].reshape(-1, 4, 4)[:, :3, 3],
                rotation=continuous(table[:, 22:]),
                lens=lens.lens_mm,
                shift_x=lens.shift_x,
                shift_y=lens.shift_y,
            ),
        )
        camera.update_tag(refresh={"OBJECT", "TIME"})

    def _show_depth(self, live: LiveFrame) -> None:
        """Have the camera see as far as the frame's points are, and be drawn in their size."""
        self.collection[PLATE] = live.plate_size
        camera, depth = self.camera, _depth(live)
        if camera is not None and depth is not None:
            near, typical, far = depth
            camera.data.clip_start = min(camera.data.clip_start, 0.1 * near)
            camera.data.clip_end = max(camera.data.clip_end, 10 * far)
            camera.data.display_size = 0.15 * typical

    def end_partial(self) -> None:
        """The job is over and there is no capture: what has arrived stays, and says so."""
        self.collection[PARTIAL] = True
        self.collection.name = f"{self.collection.name.removesuffix(' Live')} Partial"

    def hand_over(self, root: bpy.types.Object, camera: bpy.types.Object | None, *, move: bool = True) -> None:
        """Let an import take this view's place, and with `move` also the transform that the artist gave it.

        What the artist hung on the view's root or camera hangs on the import's, and scenes look through its camera.
        """
        mine, my_camera = self.root, self.camera
        if mine is not None:
            if move and self.moved:
                root.matrix_basis = mine.matrix_basis.copy()
            for ob in (ob for ob in mine.children if ob not in self._parts()):
                ob.parent = root
        if my_camera is not None and camera is not None:
            for ob in (ob for ob in my_camera.children if ob not in self._parts()):
                ob.parent = camera
            for scene in bpy.data.scenes:
                if scene.camera == my_camera:
                    scene.camera = camera
        self.remove()

    def _parts(self) -> list[bpy.types.Object]:
        return [ob for ob in bpy.data.objects if ob.get(TICKET) == self.ticket]

    def remove(self) -> None:
        """Take it out of the file, with everything that was made for it; what the artist put beside it stays."""
        _remove_frames(self.frames)
        parts = self._parts()
        data = [ob.data for ob in parts if ob.data is not None]
        actions = [
            owner.animation_data.action
            for owner in (*parts, *data)
            if owner.animation_data is not None and owner.animation_data.action is not None
        ]
        materials = [m for m in bpy.data.materials if m.get(TICKET) == self.ticket]
        theirs = [ob for ob in self.collection.objects if ob not in parts]
        homes = [c for c in (*bpy.data.collections, *(s.collection for s in bpy.data.scenes)) if c != self.collection]
        for home in (c for c in homes if self.collection in c.children[:]):
            for ob in (ob for ob in theirs if ob not in home.objects[:]):
                home.objects.link(ob)
            for child in (c for c in self.collection.children if c not in home.children[:]):
                home.children.link(child)
        own_actions = [a for a in set(actions) if a.get(TICKET) == self.ticket]
        bpy.data.batch_remove({*parts, *data, *own_actions, *materials, self.frames, self.collection})


def find_live(ticket: str) -> LiveView | None:
    """The live view of a job, if it is in this file and in some scene: one that the artist deleted is not."""
    marked = [c for c in bpy.data.collections if c.get(TICKET) == ticket]
    roles = {c.get(ROLE): c for c in marked}
    if not {"view", "frames"} <= roles.keys():
        return None
    view = LiveView(roles["view"], roles["frames"])
    player = view.player
    return view if player is not None and player.users_scene else None


def live_views(scene: bpy.types.Scene) -> list[LiveView]:
    """The live views of a scene, also those of jobs that are long over."""
    tickets = {c[TICKET] for c in scene.collection.children_recursive if c.get(ROLE) == "view"}
    return [view for view in map(find_live, sorted(tickets)) if view is not None]


def give_way(imported: Imported, folder: Path, found: Collection[int]) -> None:
    """The capture in `folder` is imported: live views of the job that wrote it give way to that.

    An import that was `found` before, by the session_uid of its root, and took the capture's contents keeps its place.
    """
    for ticket in {c[TICKET] for c in bpy.data.collections if c.get(FOLDER) == str(folder)}:
        view = find_live(ticket)
        if view is not None:
            view.hand_over(imported.root, imported.camera, move=imported.root.session_uid not in found)


def begin_live(
    scene: bpy.types.Scene,
    name: str,
    ticket: str,
    start_frame: int = 1,
    point_size: float = 1.5,
    *,
    folder: str = "",
    solid_colors: bool = False,
    facts: dict[str, Any] | None = None,
) -> LiveView:
    """An empty live view in the scene; nothing else of the scene is changed.

    `folder` is where the job will write its capture: the import of that takes the view's place. With `solid_colors`
    the points have their colours in Solid shading too, which takes longer to draw. `facts` are what the job is, for a
    partial capture: `source`, `engine`, `settings`.
    """
    collection = bpy.data.collections.new(f"{name} Live")
    frames = bpy.data.collections.new(f"{name} Live Frames")
    frames[ORIGIN] = (-1, -1)
    collection[START], collection[FOLDER], collection[FACTS] = start_frame, folder, json.dumps(facts or {})
    root = bpy.data.objects.new(collection.name, None)
    root.matrix_basis = Matrix(BLENDER_FROM_CAPTURE)
    root[PLACE] = np.array(root.matrix_basis).ravel()
    data = bpy.data.cameras.new(f"{name} Live Camera")
    data.sensor_fit, data.sensor_width = "HORIZONTAL", SENSOR_MM
    data.clip_start, data.clip_end = 0.1, 100.0
    camera = bpy.data.objects.new(data.name, data)
    camera.animation_data_create().action = bpy.data.actions.new(data.name)
    carrier = bpy.data.pointclouds.new(f"{name} Live Points")
    player = bpy.data.objects.new(carrier.name, carrier)
    material = point_material(carrier.name)
    inputs = {"Frames": frames, "Start Frame": float(start_frame), "Point Size": point_size, "Material": material}
    modifier = nodes.add_modifier(player, nodes.PLAYER, inputs)
    nodes.set_input(modifier, "Solid Colors", solid_colors)
    for datablock in (collection, frames, root, camera, player, material, camera.animation_data.action):
        datablock[TICKET] = ticket
    roles = {collection: "view", frames: "frames", root: "root", camera: "camera", player: "player"}
    for datablock, role in roles.items():
        datablock[ROLE] = role
    for ob in (root, camera, player):
        collection.objects.link(ob)
        if ob is not root:
            ob.parent = root
    scene.collection.children.link(collection)
    return LiveView(collection, frames)


def _write(ob: bpy.types.Object, live: LiveFrame) -> None:
    camera = np.asarray(live.world_from_camera, np.float64)
    rotation = Matrix((camera @ OPENCV_FROM_BLENDER_CAMERA)[:3, :3]).to_quaternion()
    numbers = [live.clip_frame, live.spacing, *live.plate_intrinsics, *camera.ravel(), *rotation]
    ob[SHOWN] = [float(number) for number in numbers]
    ob[TEXT] = live.text()


def _depth(live: LiveFrame) -> tuple[float, float, float] | None:
    """Near, typical and far depth of a frame's points; None when it has none in front of its camera."""
    camera = np.asarray(live.world_from_camera)
    depth = (live.points - camera[:3, 3]) @ camera[:3, 2]
    depth = np.sort(depth[depth > 0])
    return (float(depth[0]), float(depth[len(depth) // 2]), float(depth[-1])) if depth.size else None


def _remove_frames(frames: bpy.types.Collection) -> None:
    objects = list(frames.objects)
    bpy.data.batch_remove({*objects, *(ob.data for ob in objects)})
