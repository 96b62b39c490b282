"""Frames of a player that got out of order: telling it, and putting it right.

Blender shows the children of a collection in the order of their names, so one that is renamed, duplicated or deleted
shifts all that follow. Every frame's object knows its number (`kinora_frame`), whatever became of its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cmp_to_key

import bpy

from ..wire.errors import UserError
from .points import FRAME, frame_name, frame_object


@dataclass(frozen=True)
class Disorder:
    """What is wrong with a collection of frames; false when nothing is.

    `shifted` counts frames that are shown at the time of another one, `missing` are numbers of frames that nothing is
    left of, `strangers` counts what stands in the collection and is no frame of it, duplicates too.
    """

    shifted: int
    missing: tuple[int, ...]
    strangers: int

    def __bool__(self) -> bool:
        return bool(self.shifted or self.missing or self.strangers)

    def __str__(self) -> str:
        parts = {
            "frames shown at another one's time": self.shifted,
            "frames missing": len(self.missing),
            "other objects among the frames": self.strangers,
        }
        return "; ".join(f"{what}: {count}" for what, count in parts.items() if count)


def shown_order(frames: bpy.types.Collection) -> list[bpy.types.ID]:
    """What stands in a collection, in the order in which Geometry Nodes count it."""
    return sorted([*frames.objects, *frames.children], key=lambda child: _blenders_order(_keys(child.name)))


@cmp_to_key
def _blenders_order(a: tuple[list, bytes], b: tuple[list, bytes]) -> int:
    """Compares names as Blender sorts them: dots first, case ignored, runs of digits by their value.

    Where one name ends, fewer leading zeros come first, and else what comes first byte by byte.
    """
    zeros = 0
    for (key_a, digits_a), (key_b, digits_b) in zip(a[0], b[0]):
        if key_a != key_b:
            return -1 if key_a < key_b else 1
        zeros = zeros or digits_a - digits_b
    return zeros or (a[1] > b[1]) - (a[1] < b[1])


def _keys(name: str) -> tuple[list[tuple[tuple[int, int], int]], bytes]:
    """What to compare of each character or run of digits and how many digits it has; and the name itself."""
    keys = []
    for run in re.findall(rb"\d+|\D", name.lower().encode(), re.DOTALL):
        key = (ord("0"), int(run)) if run.isdigit() else (-1 if run == b"." else run[0], 0)
        keys.append((key, len(run)))
    return keys, name.encode()


def _untouched(frames: bpy.types.Collection, count: int) -> bool:
    """All frames are there under names that differ by their numbers only: told fast, as panels ask at every redraw."""
    objects = frames.objects[:]
    if len(objects) != count or len(frames.children) or not objects:
        return False
    prefix = objects[0].name[: -len(frame_name("", 0))]
    numbers = [ob.get(FRAME) for ob in objects]
    return all(
        isinstance(number, int) and 0 <= number < count and ob.name == frame_name(prefix, number)
        for ob, number in zip(objects, numbers)
    )


def find_disorder(frames: bpy.types.Collection, count: int) -> Disorder:
    """Compare the children of a collection with frames 0 to `count` - 1 in order."""
    if _untouched(frames, count):
        return Disorder(0, (), 0)
    children = shown_order(frames)
    kept = set(_best(frames, count).values())
    numbers = [child.get(FRAME) for child in children]
    shifted = sum(child in kept and number != place for place, (child, number) in enumerate(zip(children, numbers)))
    missing = tuple(sorted(set(range(count)) - {child[FRAME] for child in kept}))
    return Disorder(shifted, missing, len(children) - len(kept))


def _best(frames: bpy.types.Collection, count: int) -> dict[int, bpy.types.Object]:
    """The object of each frame that is there; of doubles the one whose name is the shortest, as copies have '.001'."""
    found: dict[int, bpy.types.Object] = {}
    for ob in sorted(frames.objects, key=lambda ob: (len(ob.name), ob.name)):
        number = ob.get(FRAME)
        if isinstance(number, int) and 0 <= number < count and ob.type == "POINTCLOUD":
            found.setdefault(number, ob)
    return found


def repair_frames(frames: bpy.types.Collection, count: int, elsewhere: bpy.types.Collection) -> Disorder:
    """Give every frame its name again, an empty cloud where one is missing, and return what was wrong.

    What is no frame goes to the collection `elsewhere`, so that nothing is lost. Raises UserError when the frames
    belong to another file.
    """
    if any(datablock.library is not None for datablock in (frames, *frames.objects)):
        raise UserError(f"The frames of {frames.name} are linked from another file", "repair them in that file")
    disorder = find_disorder(frames, count)
    if not disorder:
        return disorder
    best = _best(frames, count)
    kept = set(best.values())
    for ob in [ob for ob in frames.objects if ob not in kept]:
        frames.objects.unlink(ob)
        if not ob.users_collection:
            elsewhere.objects.link(ob)
    for child in list(frames.children):
        frames.children.unlink(child)
        parents = [*bpy.data.collections, *(scene.collection for scene in bpy.data.scenes)]
        if not any(child in parent.children[:] for parent in parents):
            elsewhere.children.link(child)
    for number in disorder.missing:
        name = frame_name(frames.name, number)
        best[number] = frame_object(name, number, bpy.data.pointclouds.new(name))
        frames.objects.link(best[number])
    _rename(frames.name, best)
    return disorder


def _rename(prefix: str, objects: dict[int, bpy.types.Object]) -> None:
    """Name the frames, all of them alike: one that Blender gave a '.001' would sort by luck."""
    ours = {ob.name for ob in objects.values()}
    taken = {ob.name for ob in bpy.data.objects} - ours
    attempt, number = prefix, 2
    while any(frame_name(attempt, frame) in taken for frame in objects):
        attempt, number = f"{number} {prefix}", number + 1
    for frame, ob in objects.items():  # out of each other's way first
        ob.name = f"~{frame}"
    for frame, ob in objects.items():
        ob.name = frame_name(attempt, frame)
