"""Prints what Blender's own importer makes of a GLB file, as JSON: python blender_reads_glb.py FILE"""

import json
import os
import sys

import bpy

SHOWN = 0.5  # scale above which a time step counts as visible


def describe(path: str) -> dict:
    """The visible time steps and the camera's matrix at every frame, and one step's points with their colours."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps = 24
    bpy.ops.import_scene.gltf(filepath=path)
    objects = bpy.data.objects
    steps = sorted(o.name for o in objects if o.name.startswith("frame_"))
    shown, cameras = [], []
    for frame in range(len(steps)):
        scene.frame_set(frame)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        matrices = {o.name: o.evaluated_get(depsgraph).matrix_world for o in objects}
        shown.append([name for name in steps if max(matrices[name].to_scale()) > SHOWN])
        cameras.append([list(row) for row in matrices["camera"]])
    scene.frame_set(1)
    cloud = objects["frame_0001"]
    world = cloud.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world
    colours = cloud.data.color_attributes[0].data
    return {
        "shown": shown,
        "cameras": cameras,
        "points": [list(world @ v.co) for v in cloud.data.vertices],
        "colours": [list(c.color_srgb)[:3] for c in colours],
        "lens": objects["camera"].data.lens,
    }


if __name__ == "__main__":
    description = describe(sys.argv[1])
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(description, file)
    os._exit(0)  # bpy as a module does not always leave its process
