"""Mesh objects of true size (no object scale), so that textures in object coordinates are in metres."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import bmesh
import bpy
import numpy as np
from mathutils import Euler, Matrix, Vector


def new_object(name: str, mesh: bpy.types.Mesh | None, material=None, at=(0, 0, 0), turn=(0, 0, 0), parent=None):
    """Link an object of `mesh` (None: an empty) with Euler angles `turn` in radians under `parent`."""
    thing = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(thing)
    if material is not None:
        mesh.materials.clear()
        mesh.materials.append(material)
    thing.location, thing.rotation_euler, thing.parent = at, turn, parent
    return thing


def _mesh(name: str, bm: bmesh.types.BMesh, smooth: bool) -> bpy.types.Mesh:
    mesh = bpy.data.meshes.new(name)
    for face in bm.faces:
        face.smooth = smooth
    bm.to_mesh(mesh)
    bm.free()
    return mesh


def box(name: str, size: Sequence[float], material, at=(0, 0, 0), turn=(0, 0, 0), parent=None, bevel: float = 0.0):
    """A box centred on its origin, its edges rounded by `bevel` metres."""
    bm = bmesh.new()
    bmesh.ops.create_cube(bm, size=1.0, matrix=Matrix.Diagonal((*size, 1.0)))
    if bevel:
        bmesh.ops.bevel(bm, geom=bm.edges[:], offset=bevel, segments=2, profile=0.6, affect="EDGES")
    return new_object(name, _mesh(name, bm, False), material, at, turn, parent)


def lathe(name: str, profile: Sequence[tuple[float, float]], material, at=(0, 0, 0), turn=(0, 0, 0), parent=None):
    """A surface of revolution about z through (radius, height) points."""
    segments = 28
    bm = bmesh.new()
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = [[bm.verts.new((r * np.cos(a), r * np.sin(a), z)) for a in angles] for r, z in profile]
    for low, high in itertools.pairwise(rings):
        for i in range(segments):
            bm.faces.new((low[i], low[(i + 1) % segments], high[(i + 1) % segments], high[i]))
    return new_object(name, _mesh(name, bm, True), material, at, turn, parent)


def ball(name: str, radius: float, material, at=(0, 0, 0), parent=None, subdivisions: int = 4):
    """A sphere."""
    bm = bmesh.new()
    bmesh.ops.create_icosphere(bm, subdivisions=subdivisions, radius=radius)
    return new_object(name, _mesh(name, bm, True), material, at, parent=parent)


def rod(name: str, start, end, radius: float, material, parent=None):
    """A closed cylinder between two points."""
    start, end = Vector(start), Vector(end)
    along = end - start
    profile = [(0, 0), (radius, 0), (radius, along.length), (0, along.length)]
    turn = along.to_track_quat("Z", "Y").to_euler()
    return lathe(name, profile, material, start, turn, parent)


def foliage(name: str, centres: np.ndarray, length: float, material, rng: np.random.Generator, parent=None):
    """Folded leaves of about `length` at (N, 3) `centres`, facing every way."""
    bm = bmesh.new()
    outline = np.array([[0, 0, 0], [0.5, 0.32, 0.1], [1, 0, -0.05], [0.5, -0.32, 0.1]])
    for centre in centres:
        turn = Euler(rng.uniform(0, 2 * np.pi, 3)).to_matrix()
        size = length * rng.uniform(0.6, 1.3)
        a, b, c, d = (bm.verts.new(Vector(centre) + turn @ Vector(p * size)) for p in outline)
        bm.faces.new((a, b, c))
        bm.faces.new((a, c, d))
    return new_object(name, _mesh(name, bm, False), material, parent=parent)


def wall_with_arch(name: str, low, high, arch_x: float, arch_width: float, arch_height: float, material):
    """A wall in the xz plane from corner `low` to `high` with a round-arched opening of the given size."""
    radius = arch_width / 2
    angles = np.linspace(np.pi, 0, 17)
    spring = arch_height - radius
    opening = [(arch_x + radius * np.cos(a), spring + radius * np.sin(a)) for a in angles]
    (x0, y0, z0), (x1, y1, z1) = low, high
    outline = [(x0, z0), (opening[0][0], z0), *opening, (opening[-1][0], z0), (x1, z0), (x1, z1), (x0, z1)]
    bm = bmesh.new()
    front = bm.faces.new([bm.verts.new((x, y0, z)) for x, z in outline])
    grown = bmesh.ops.extrude_face_region(bm, geom=[front])["geom"]
    bmesh.ops.translate(bm, vec=(0, y1 - y0, 0), verts=[v for v in grown if isinstance(v, bmesh.types.BMVert)])
    bmesh.ops.triangulate(bm, faces=bm.faces[:])
    bmesh.ops.recalc_face_normals(bm, faces=bm.faces[:])
    return new_object(name, _mesh(name, bm, False), material)
