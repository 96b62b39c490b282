"""A scene of our own to evaluate things in, so that the artist's scene is never evaluated for an import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy


@contextmanager
def workbench(*objects: bpy.types.Object) -> Iterator[bpy.types.Scene]:
    """A temporary scene with these objects in it; the scene goes away again, the objects stay."""
    scene = bpy.data.scenes.new("Kinora Workbench")
    try:
        for ob in objects:
            scene.collection.objects.link(ob)
        yield scene
    finally:
        bpy.data.scenes.remove(scene)


def evaluated(ob: bpy.types.Object, scene: bpy.types.Scene) -> bpy.types.Object:
    """The object as the scene evaluates it now."""
    view_layer = scene.view_layers[0]
    view_layer.update()
    return ob.evaluated_get(view_layer.depsgraph)
