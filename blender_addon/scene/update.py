"""Update Existing: what is new of a capture goes into an earlier import, whose objects and settings stay the artist's.

A new import is built whole beside the earlier one. Then contents change hands: the earlier objects get the new clouds,
keys and pictures, and what remains of the new import is removed together with what was replaced. Either all of that
happens or none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from . import nodes
from .baseline import (
    camera_values,
    family,
    merged,
    remembered,
    scene_values,
    set_scene_values,
)
from .belongings import (
    ELEMENTS,
    FRAMES,
    LABEL,
    marked,
    pictures,
    remove_import,
    remove_unused,
)
from .camera_edits import renew_camera
from .changes import Changes, frozen
from .compositor import show_group
from .earlier import MADE, NAME, PARTIAL_MARK, PARTIAL_OF, inputs_of
from .exchange import copy_keys, copy_row, copy_row_time, nodes_with, replace_group, show_files_of, shown_in, size_note
from .imported import LINKED, PLAYER, PROJECTED, ROLE, ROOT, ROOT_POINTER, STATIC, Imported
from .options import ImportOptions
from .solve_quality import CURVE

if TYPE_CHECKING:
    from .build import Built


def update(earlier: Imported, built: Built, scene: bpy.types.Scene, options: ImportOptions) -> bpy.types.Collection:
    """Move the contents of a new import into an earlier one, and return the collection of that."""
    collection = earlier.collection
    note = size_note(earlier.camera, built.camera)
    if note:
        built.root["kinora_notes"] = "\n".join(filter(None, [built.root["kinora_notes"], note]))
    with Changes() as changes:
        swap = _Swap(earlier, built, options, changes)
        swap.pictures()
        swap.elements(scene)
        swap.objects()
        swap.frames()
        swap.scene(scene)
        swap.facts()
        if earlier.camera is not None:
            changes.keep_items(earlier.camera)
            renew_camera(earlier, built.capture, scene)
    return collection


class _Swap:
    """One update: `old` and `new` are the two roots. What it cannot take back it leaves for last."""

    def __init__(self, earlier: Imported, built: Built, options: ImportOptions, changes: Changes) -> None:
        self.earlier, self.built, self.options, self.changes = earlier, built, options, changes
        self.old, self.new = earlier.root, built.root
        self.names = self.new[NAME], self.old.get(NAME, self.old.name)
        self.made = dict.fromkeys(filter(None, self.old.get(MADE, "").split(",")))
        self.had = set(pictures(self.old))
        self.replaced: list[bpy.types.ID] = []  # goes in the end, where nothing of the artist's uses it
        changes.last(self._clean)

    def _clean(self) -> None:
        """Remove what is left of the new import, and what it replaced."""
        remove_import(self.new)
        remove_unused(self.replaced)

    def _adopt(self, datablock: bpy.types.ID) -> None:
        """Make a part of the new import one of the earlier import, with a name like its own."""
        self.changes.item(datablock, ROOT_POINTER, self.old)
        self._name(datablock)

    def _name(self, *datablocks: bpy.types.ID) -> None:
        """Name something new as the earlier import would have, once that name is free."""
        for datablock in filter(None, datablocks):
            name = datablock.name.replace(*self.names, 1)
            self.changes.last(lambda datablock=datablock, name=name: setattr(datablock, "name", name))

    def _retire(self, datablock: bpy.types.ID) -> None:
        """Give a part of the earlier import to the new one, which is removed."""
        self.changes.item(datablock, ROOT_POINTER, self.new)

    def pictures(self) -> None:
        """Images and clips stay the same datablocks and show the new files: the artist's nodes and masks use them."""
        old, new = pictures(self.old), pictures(self.new)
        for label, picture in new.items():
            if label not in old:
                self._adopt(picture)
                continue
            show_files_of(picture, old[label], self.changes)
            picture.user_remap(old[label])  # only parts of the new import use it
        for label in old.keys() - new.keys():
            self._retire(old[label])

    def elements(self, scene: bpy.types.Scene) -> None:
        """The group of the pictures is replaced wherever it is used; what is connected to it stays connected."""
        old, new = marked(self.old, ELEMENTS), self.built.elements
        if not old and not self.options.restore_deleted:
            return  # the artist deleted it
        self._adopt(new)
        for group in old:
            self._retire(group)
            new.use_fake_user |= group.use_fake_user
            for node in list(nodes_with(group)):
                replace_group(node, new, self.changes)
        if not old:
            self.changes.last(lambda: show_group(scene, new))

    def objects(self) -> None:
        """Objects with the same role exchange their contents; others come or go."""
        new_ones: dict[str, list[bpy.types.Object]] = {}
        for ob, role in self.built.roles.items():
            new_ones.setdefault(role, []).append(ob)
        for role in (self.made | new_ones).keys() - {ROOT}:
            here, coming = self.earlier.objects(role), new_ones.get(role, [])
            if not coming:
                for ob in here:
                    self._leave(ob)
            elif here:
                for i, ob in enumerate(here):
                    self._refresh(ob, coming[min(i, len(coming) - 1)])
            elif role not in self.made or (self.options.restore_deleted and not self._elsewhere(role)):
                for ob in coming:
                    self._join(ob)

    def _elsewhere(self, role: str) -> bool:
        """Whether points are not missing, but read from files since the artist converted them."""
        return role in (PLAYER, STATIC) and any(self.earlier.objects(kind) for kind in (LINKED, PROJECTED))

    def _join(self, ob: bpy.types.Object) -> None:
        """Add an object that the earlier import did not have."""
        collection = self.earlier.collection
        self._adopt(ob)
        self._name(ob.data)
        ob.parent = self.old
        for modifier, name in inputs_of(ob):
            if isinstance(nodes.get_input(modifier, name), bpy.types.Material):
                nodes.set_input(modifier, name, self._material() or nodes.get_input(modifier, name))
        self.built.collection.objects.unlink(ob)
        self.changes.do(lambda: collection.objects.link(ob), lambda: collection.objects.unlink(ob))

    def _material(self) -> bpy.types.Material | None:
        """What the points of the earlier import look like."""
        objects = [ob for role in self.made if role != ROOT for ob in self.earlier.objects(role)]
        values = [nodes.get_input(modifier, name) for ob in objects for modifier, name in inputs_of(ob)]
        return next((value for value in values if isinstance(value, bpy.types.Material)), None)

    def _leave(self, ob: bpy.types.Object) -> None:
        """Remove an object that the new capture has nothing for; what hangs on it hangs on the root from now on."""
        for child in list(ob.children):
            world, basis = child.matrix_world.copy(), child.matrix_basis.copy()
            self.changes.set(child, "parent", self.old)
            self.changes.do(
                lambda child=child, world=world: setattr(child, "matrix_world", world),
                lambda child=child, basis=basis: setattr(child, "matrix_basis", basis),
            )
        self._retire(ob)

    def _refresh(self, old: bpy.types.Object, new: bpy.types.Object) -> None:
        """The earlier object shows what the new one has."""
        if old.type == "CAMERA" and new.type == "CAMERA":
            self._camera(old, new)
        elif old.data is not None and type(old.data) is type(new.data):
            data, fresh, name = old.data, new.data, old.data.name
            for material in data.materials:
                fresh.materials.append(material)
            self.changes.set(old, "data", fresh)
            self.replaced.append(data)
            self.changes.last(lambda: setattr(fresh, "name", name))
        self._modifiers(old, new)
        _copy_facts(old, new, self.changes)

    def _modifiers(self, old: bpy.types.Object, new: bpy.types.Object) -> None:
        """Inputs that are still what the earlier import set take the new values; a modifier that is gone stays gone."""
        baseline = remembered(old)
        for theirs in (m for m in new.modifiers if m.type == "NODES"):
            for mine in (m for m in old.modifiers if family(m) == family(theirs)):
                values = {name: nodes.get_input(mine, name) for name in nodes.input_names(mine)}
                if mine.node_group != theirs.node_group:  # of another version of Kinora
                    self.replaced.append(mine.node_group)
                    self.changes.set(mine, "node_group", theirs.node_group)
                for name in nodes.input_names(theirs):
                    value = nodes.get_input(theirs, name)
                    if name in values:
                        value = self._merged(baseline, f"{family(theirs)}/{name}", values[name], value)
                    self._set_input(mine, name, value)

    def _merged(self, baseline: dict[str, Any], name: str, mine: Any, theirs: Any) -> Any:
        if isinstance(mine, bpy.types.ID) or (theirs is None and mine is None):
            return mine  # the same material, edited or another one; the same collection, with the new frames in it
        return merged(baseline, name, mine, theirs)

    def _set_input(self, modifier: bpy.types.Modifier, name: str, value: Any) -> None:
        old = frozen(nodes.get_input(modifier, name))
        if old != frozen(value):
            self.changes.do(
                lambda: nodes.set_input(modifier, name, value), lambda: nodes.set_input(modifier, name, old)
            )

    def _camera(self, old: bpy.types.Object, new: bpy.types.Object) -> None:
        """The earlier camera gets the new keys; what an import does not set, such as depth of field, is untouched."""
        baseline = remembered(old)
        for name, value in camera_values(new.data).items():
            self.changes.set(old.data, name, merged(baseline, name, getattr(old.data, name), value))
        self.changes.set(old, "rotation_mode", new.rotation_mode)
        for owner, other, paths in (
            (old, new, ("location", "rotation_quaternion")),
            (old.data, new.data, ("lens", "shift_x", "shift_y")),
        ):
            for path in paths:
                self.changes.set(owner, path, getattr(other, path))
                copy_keys(other, path, owner, path, self.changes)
        copy_keys(new, f'["{CURVE}"]', old, f'["{CURVE}"]', self.changes)
        self.changes.item(old, CURVE, new.get(CURVE))
        self._backgrounds(old.data, new.data)

    def _backgrounds(self, old: bpy.types.Camera, new: bpy.types.Camera) -> None:
        """The pictures behind the camera: rows that the artist has stay as they are but for their time."""
        rows = [shown_in(row) for row in old.background_images]
        for i, theirs in enumerate(new.background_images):
            shown = shown_in(theirs)
            if shown in rows:
                j = rows.index(shown)
                mine = old.background_images[j]
            elif shown is not None and shown.get(LABEL) not in self.had:
                j = len(old.background_images)
                mine = copy_row(theirs, old, self.changes)
            else:
                continue  # the artist took it away
            copy_row_time(theirs, mine, self.changes)
            path = "background_images[{}].image_user.frame_offset"
            copy_keys(new, path.format(i), old, path.format(j), self.changes)

    def frames(self) -> None:
        """The collections of the frames stay and hold the new clouds, so that whatever instances them follows."""
        old, new = marked(self.old, FRAMES), marked(self.new, FRAMES)
        for mine, theirs in zip(old, new):
            gone, come = [ob for ob in mine.objects if "kinora_frame" in ob], list(theirs.objects)
            for place, leaving, coming in ((mine, gone, come), (theirs, come, gone)):
                for ob in leaving:
                    self._unlink(place, ob)
                for ob in coming:
                    self._unlink(place, ob, instead=True)
            self._name(*come, *(ob.data for ob in come))
        for collection in new[len(old) :]:
            self._adopt(collection)
            self._name(*collection.objects, *(ob.data for ob in collection.objects))

    def _unlink(self, place: bpy.types.Collection, ob: bpy.types.Object, instead: bool = False) -> None:
        """Take an object out of a collection, or put it in."""
        both = (lambda: place.objects.unlink(ob), lambda: place.objects.link(ob))
        self.changes.do(*(reversed(both) if instead else both))

    def scene(self, scene: bpy.types.Scene) -> None:
        """Rate, range and size of the scene, where they are still what the earlier import made them."""
        baseline, mine, wanted = remembered(self.old), scene_values(scene), remembered(self.new)
        set_scene_values(scene, {n: merged(baseline, n, mine[n], wanted[n]) for n in wanted}, self.changes)
        camera = self.built.camera
        if self.options.set_scene and scene.camera is None and camera.get(ROOT_POINTER) == self.old:
            self.changes.set(scene, "camera", camera)

    def facts(self) -> None:
        """What is known of the capture, on the root and on its collection."""
        made = ",".join(self.made | dict.fromkeys(self.new[MADE].split(",")))
        partial = self.old.get(PARTIAL_OF)
        _copy_facts(self.old, self.new, self.changes, keep=(NAME,))
        self.changes.item(self.old, MADE, made)
        collection = self.earlier.collection
        if collection.get(ROOT_POINTER) == self.old:
            _copy_facts(collection, self.built.collection, self.changes)
            if partial and not self.old.get(PARTIAL_OF):
                name = collection.name.replace(PARTIAL_MARK, "", 1)
                self.changes.last(lambda: setattr(collection, "name", name))


def _copy_facts(old: bpy.types.ID, new: bpy.types.ID, changes: Changes, keep: tuple[str, ...] = ()) -> None:
    """Every custom property of Kinora, but for what says where the datablock belongs."""
    for name in list(new.keys()):
        if name.startswith("kinora_") and name not in (ROLE, ROOT_POINTER, *keep):
            changes.item(old, name, new[name])
