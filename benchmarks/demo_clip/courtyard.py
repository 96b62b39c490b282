"""The set: a sunlit courtyard with many layers of depth; z is up, the camera looks along +y, units are metres."""

from __future__ import annotations

import itertools

import bpy
import numpy as np

from . import materials as mat
from .shapes import ball, box, foliage, lathe, new_object, rod, wall_with_arch

RED_BRICKS = ((0.13, 0.035, 0.022), (0.36, 0.1, 0.05), (0.5, 0.17, 0.075), (0.42, 0.25, 0.14), (0.62, 0.34, 0.2))
PALE_BRICKS = ((0.2, 0.13, 0.09), (0.46, 0.33, 0.22), (0.56, 0.46, 0.34), (0.68, 0.55, 0.4), (0.36, 0.2, 0.13))
GREENS = ((0.02, 0.07, 0.01), (0.06, 0.19, 0.025), (0.16, 0.32, 0.05), (0.34, 0.42, 0.09))
PRINT = (
    (0.75, 0.09, 0.05),
    (0.9, 0.72, 0.42),
    (0.04, 0.16, 0.24),
    (0.9, 0.86, 0.76),
    (0.88, 0.36, 0.06),
    (0.1, 0.36, 0.33),
)


def build() -> None:
    """Fill the empty scene with the set and its light."""
    rng = np.random.default_rng(11)
    brown = mat.wood("crate wood", (0.1, 0.05, 0.022), (0.5, 0.3, 0.15))
    grey = mat.wood("old wood", (0.08, 0.07, 0.06), (0.42, 0.37, 0.31))
    walls()
    back_of_the_yard(grey)
    for corner, size, angle in (
        ((1.95, 3.15, 0), 0.72, 0.25),
        ((2.75, 3.5, 0), 0.8, -0.15),
        ((2.3, 3.3, 0.74), 0.62, 0.6),
        ((-2.55, 5.3, 0), 0.7, 0.3),
        ((-1.9, 5.75, 0), 0.52, -0.4),
        ((-2.45, 5.45, 0.72), 0.45, 0.9),
    ):
        crate(brown, corner, size, angle, rng)
    barrel(brown, (1.55, 5.9, 0))
    barrel(brown, (2.25, 6.05, 0))
    stall(grey, rng)
    plants(rng)
    ladder(brown)
    bunting(rng)
    light()


def walls() -> None:
    """Ground, the two sides, the back wall with its arch and the alley seen through it."""
    box("ground", (16, 22, 0.2), mat.cobbles("cobbles"), (0, 5, -0.1))
    plaster = mat.bricks("ochre plaster", RED_BRICKS, (0.62, 0.4, 0.17), 0.53)
    box("left wall", (0.4, 12, 4.8), plaster, (-3.6, 3.5, 2.4))
    box("right wall", (0.4, 9, 6), mat.bricks("pale bricks", PALE_BRICKS), (4.2, 5, 3))
    wall_with_arch("back wall", (-3.6, 7.2, 0), (4.2, 7.7, 6), 0.35, 1.7, 2.55, mat.bricks("red bricks", RED_BRICKS))
    box("alley", (9, 0.3, 6), mat.bricks("far plaster", PALE_BRICKS, (0.55, 0.5, 0.42), 0.5), (0.5, 11.5, 3))
    stone = mat.painted("stone", (0.56, 0.5, 0.42), (0.3, 0.26, 0.21), 0.56)
    for i, angle in enumerate(np.linspace(np.pi, 0, 13)):
        centre = (0.35 + 0.97 * np.cos(angle), 7.18, 1.7 + 0.97 * np.sin(angle))
        box(f"arch stone {i}", (0.24, 0.12, 0.22), stone, centre, (0, np.pi / 2 - angle, 0), bevel=0.015)
    for side in (-1, 1):
        for k in range(6):
            box(f"jamb {side} {k}", (0.24, 0.12, 0.26), stone, (0.35 + side * 0.97, 7.18, 0.14 + 0.28 * k), bevel=0.015)
    for i in range(7):
        box(f"kerb {i}", (0.22, 1.1, 0.16), stone, (-3.25, 0.6 + 1.13 * i, 0.06), (0, 0, 0.01 * (-1) ** i), bevel=0.02)


def back_of_the_yard(wood) -> None:
    """Windows with shutters, posters and a lamp on the back and left walls."""
    paint = mat.painted("shutter paint", (0.06, 0.28, 0.3), (0.4, 0.3, 0.2), 0.58)
    dark = mat.painted("window", (0.03, 0.04, 0.05), (0.1, 0.1, 0.1), 0.66)
    for x in (-2.05, 2.75):
        box("pane", (0.8, 0.06, 1.05), dark, (x, 7.2, 2.65))
        for k in (-1, 0, 1):
            box("bar", (0.05, 0.08, 1.1), wood, (x + 0.38 * k, 7.17, 2.65), bevel=0.008)
        box("cross", (0.8, 0.08, 0.05), wood, (x, 7.165, 2.75), bevel=0.008)
        box("sill", (1.1, 0.26, 0.09), wood, (x, 7.1, 2.06), bevel=0.01)
        for side in (-1, 1):
            for k in range(4):
                at = (x + side * (0.5 + 0.11 * k), 7.13 - 0.035 * k, 2.65)
                box("shutter", (1.12, 0.03, 0.105), paint, at, (np.pi / 2, np.pi / 2, side * 0.3), bevel=0.006)
    for i, (x, z, w, h, scale) in enumerate(
        ((-1.15, 1.55, 0.5, 0.7, 7), (1.85, 1.75, 0.62, 0.85, 5.5), (-2.9, 1.3, 0.6, 0.44, 9))
    ):
        box(
            f"poster {i}",
            (w, 0.012, h),
            mat.patches(f"print {i}", PRINT[i:] + PRINT[:i], scale),
            (x, 7.185, z),
            (0, 0.03 * i, 0),
        )
    for i, (y, z, w, h) in enumerate(((3.4, 1.5, 0.7, 0.95), (5.1, 2.0, 0.55, 0.75))):
        box(
            f"sign {i}", (0.02, w, h), mat.patches(f"sign print {i}", PRINT[i + 2 :] + PRINT[: i + 2], 5), (-3.38, y, z)
        )
    iron = mat.painted("iron", (0.05, 0.05, 0.055), (0.25, 0.1, 0.04), 0.57)
    rod("lamp arm", (-0.85, 7.2, 2.75), (-0.85, 6.75, 2.9), 0.025, iron)
    lathe("lamp shade", [(0.02, 0.2), (0.05, 0.15), (0.2, 0.0)], iron, (-0.85, 6.75, 2.68))
    ball("bulb", 0.07, mat.glow("bulb", (1.0, 0.62, 0.25), 6.0), (-0.85, 6.75, 2.7), subdivisions=2)


def crate(wood, at, size: float, angle: float, rng) -> None:
    """A wooden crate of planks with gaps, standing at `at`."""
    root = new_object("crate", None, at=(at[0], at[1], at[2] + size / 2), turn=(0, 0, angle))
    half, rail = size / 2, size * 0.11
    box("core", (size * 0.93,) * 3, wood, parent=root)
    for axis in range(4):
        face = new_object("face", None, turn=(0, 0, axis * np.pi / 2), parent=root)
        for k in range(5):
            z = -half + size * (k + 0.5) / 5
            plank = (size * 0.98, 0.02, size / 5 - rng.uniform(0.012, 0.03))
            box("plank", plank, wood, (0, -half, z), (0, rng.normal(0, 0.012), 0), face, 0.004)
        for z in (-half + rail / 2, half - rail / 2):
            box("rail", (size, 0.025, rail), wood, (0, -half - 0.022, z), parent=face, bevel=0.005)
        box("brace", (size * 1.1, 0.024, rail), wood, (0, -half - 0.018, 0), (0, 0.72, 0), face, 0.005)
    for k in range(4):
        box(
            "lid",
            (size * 1.03, size / 4 - 0.012, 0.025),
            wood,
            (0, -half + size * (k + 0.5) / 4, half),
            parent=root,
            bevel=0.005,
        )


def barrel(wood, at) -> None:
    """A barrel with three iron hoops."""
    heights = np.linspace(0, 0.95, 12)
    radii = 0.27 + 0.09 * np.sin(np.pi * heights / 0.95)
    lathe("barrel", [(0.0, 0.0), *zip(radii, heights), (0.25, 0.93), (0, 0.93)], wood, at)
    iron = mat.painted("hoop", (0.07, 0.065, 0.06), (0.3, 0.12, 0.05), 0.56)
    for z in (0.12, 0.45, 0.8):
        r = 0.275 + 0.09 * np.sin(np.pi * z / 0.95)
        lathe("hoop", [(r, z - 0.03), (r + 0.012, z - 0.03), (r + 0.012, z + 0.03), (r, z + 0.03)], iron, at)


def stall(wood, rng) -> None:
    """A market table by the left wall with boxes of fruit under a striped awning."""
    root = new_object("stall", None, at=(-2.45, 3.55, 0), turn=(0, 0, 0.22))
    for k in range(4):
        box("board", (1.75, 0.2, 0.04), wood, (0, -0.32 + 0.21 * k, 0.78), (0, rng.normal(0, 0.01), 0), root, 0.006)
    for x in (-0.78, 0.78):
        for y in (-0.33, 0.3):
            box("leg", (0.78, 0.08, 0.08), wood, (x, y, 0.38), (0, np.pi / 2, 0), root, 0.006)
        box("post", (1.6, 0.06, 0.06), wood, (x, 0.36, 1.58), (0, np.pi / 2, 0), root, 0.006)
    kinds = (
        mat.fruit("orange", ((0.75, 0.2, 0.01), (0.9, 0.38, 0.03))),
        mat.fruit("apple", ((0.5, 0.02, 0.02), (0.6, 0.3, 0.05))),
        mat.fruit("lime", ((0.2, 0.35, 0.03), (0.5, 0.55, 0.08))),
    )
    for i, kind in enumerate(kinds):
        x = -0.56 + 0.56 * i
        for y in (-0.33, 0.22):
            box("tray", (0.5, 0.02, 0.14), wood, (x, y, 0.88), parent=root, bevel=0.004)
        for dx in (-0.25, 0.25):
            box("tray end", (0.56, 0.02, 0.14), wood, (x + dx, -0.055, 0.88), (0, 0, np.pi / 2), root, 0.004)
        for _ in range(38):
            place = (x + rng.uniform(-0.19, 0.19), rng.uniform(-0.28, 0.17), 0.88 + rng.uniform(0, 0.1))
            ball("fruit", rng.uniform(0.045, 0.06), kind, place, root, 3)
    cloth = (
        mat.painted("awning red", (0.62, 0.07, 0.05), (0.4, 0.12, 0.08), 0.6),
        mat.painted("awning white", (0.74, 0.68, 0.56), (0.5, 0.42, 0.3), 0.6),
    )
    for k in range(7):
        box("awning", (0.27, 1.0, 0.015), cloth[k % 2], (-0.81 + 0.27 * k, 0.0, 2.2), (0.32, 0, 0), root)
        box("fringe", (0.27, 0.012, 0.13 + 0.03 * (k % 3)), cloth[k % 2], (-0.81 + 0.27 * k, -0.47, 1.98), parent=root)


def plants(rng) -> None:
    """Ivy on the left and back walls and plants in pots, one of them close to the lens."""
    leaf = mat.leaves("leaf", GREENS)
    clay = mat.painted("clay", (0.5, 0.2, 0.1), (0.66, 0.46, 0.34), 0.55)
    pot = [(0.0, 0.0), (0.17, 0.0), (0.24, 0.36), (0.27, 0.36), (0.27, 0.44), (0.22, 0.44), (0.2, 0.38), (0, 0.38)]
    for i, (x, y, grow) in enumerate(((1.15, 2.35, 0.75), (-0.85, 6.7, 1.0), (1.62, 6.75, 0.9), (3.2, 4.75, 1.3))):
        lathe(f"pot {i}", pot, clay, (x, y, 0), (0, 0, i))
        away = rng.normal(size=(int(260 * grow), 3))
        away *= (rng.uniform(0.1, 1, len(away)) ** 0.5 / np.linalg.norm(away, axis=1))[:, None]
        foliage(f"plant {i}", away * (0.36, 0.36, 0.34 * grow) + (x, y, 0.55 + 0.25 * grow), 0.13, leaf, rng)
    y, z = rng.uniform(4.9, 7.1, 2600), rng.uniform(0, 1, 2600)
    height = 3.4 + 0.9 * np.sin(2.1 * y) + 0.4 * np.sin(7 * y)
    foliage(
        "ivy",
        np.stack([-3.38 + rng.uniform(0, 0.12, 2600), y, 4.6 - z**1.5 * (4.6 - 0.5 * height)], 1),
        0.11,
        leaf,
        rng,
    )
    x, z = rng.uniform(-3.4, -1.0, 1500), rng.uniform(0, 1, 1500)
    foliage(
        "ivy above",
        np.stack([x, 7.15 - rng.uniform(0, 0.1, 1500), 3.45 + z + 0.35 * np.sin(4 * x)], 1),
        0.11,
        leaf,
        rng,
    )


def ladder(wood) -> None:
    """A ladder leaning on the right wall's corner."""
    root = new_object("ladder", None, at=(3.0, 6.3, 0), turn=(-0.28, 0, -0.25))
    for x in (-0.22, 0.22):
        box("rail", (3.1, 0.05, 0.07), wood, (x, 0, 1.55), (0, np.pi / 2, 0), root, 0.006)
    for k in range(9):
        box("rung", (0.44, 0.035, 0.05), wood, (0, 0, 0.25 + 0.33 * k), parent=root, bevel=0.006)


def bunting(rng) -> None:
    """Two lines of flags across the yard, at different depths."""
    string = mat.painted("string", (0.3, 0.27, 0.2), (0.2, 0.16, 0.1))
    flags = [mat.painted(f"flag {i}", c, tuple(0.5 * v for v in c), 0.6) for i, c in enumerate(PRINT)]
    for y, z, sag in ((4.6, 3.3, 0.5), (6.3, 3.5, 0.45)):
        xs = np.linspace(-3.4, 4.0, 23)
        line = [(x, y, z - sag * (1 - ((x - 0.3) / 3.7) ** 2)) for x in xs]
        for a, b in itertools.pairwise(line):
            rod("string", a, b, 0.006, string)
            mesh = bpy.data.meshes.new("flag")
            mesh.from_pydata([(-0.12, 0, 0), (0.12, 0, 0), (0, 0, -0.3)], [], [(0, 1, 2)])
            middle, turn = [(p + q) / 2 for p, q in zip(a, b)], (rng.normal(0, 0.25), 0, rng.normal(0, 0.3))
            new_object("flag", mesh, flags[int(rng.integers(len(flags)))], middle, turn)


def light() -> None:
    """A warm afternoon sun over the left shoulder, soft at its edge, and a blue sky."""
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.data.angle, sun.data.color = 5.2, 0.08, (1.0, 0.87, 0.68)
    sun.rotation_euler = (0.76, 0.0, -0.32)
    bpy.context.scene.collection.objects.link(sun)
    world = bpy.data.worlds.new("sky")
    if not world.node_tree:
        world.use_nodes = True
    background = next(n for n in world.node_tree.nodes if n.type == "BACKGROUND")
    background.inputs["Color"].default_value = (0.42, 0.6, 1.0, 1.0)
    background.inputs["Strength"].default_value = 0.9
    bpy.context.scene.world = world
