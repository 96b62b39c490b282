"""What moves: the hand-held camera, a walking robot and a bouncing ball, posed frame by frame."""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Euler, Matrix, Vector

from . import materials as mat
from .shapes import ball, box, lathe, new_object, rod

FRAMES, FPS = 48, 24
FOCAL_MM, SENSOR_MM = 28.0, 36.0
#: Pass index of everything that moves, for the masks.
MOVES = 1
STEP_S, STRIDE = 0.62, 0.42  # seconds of a step of the robot, swing of its legs in radians
BALL_RADIUS, BOUNCE_S, BOUNCE_M = 0.38, 0.74, 0.72


def build_movers() -> dict[str, bpy.types.Object]:
    """The robot and the ball; the returned empties and limbs are what `pose` moves."""
    before = set(bpy.data.objects)
    limbs = robot()
    limbs["ball"] = new_object("ball root", None)
    colours = ((0.75, 0.06, 0.05), (0.9, 0.62, 0.08), (0.05, 0.2, 0.5), (0.85, 0.82, 0.74), (0.05, 0.36, 0.3))
    ball("ball", BALL_RADIUS, mat.patches("ball", colours, 4.2, 0.03, 0.3), parent=limbs["ball"], subdivisions=5)
    for thing in set(bpy.data.objects) - before:
        thing.pass_index = MOVES
    return limbs


def robot() -> dict[str, bpy.types.Object]:
    """A friendly robot 1.6 m tall in chipped paint, walking towards its own -y."""
    orange = mat.painted("robot orange", (0.85, 0.3, 0.03), (0.3, 0.28, 0.27), 0.585, (0.8, 0.62, 0.4))
    teal = mat.painted("robot teal", (0.05, 0.34, 0.38), (0.4, 0.36, 0.3), 0.575)
    steel = mat.painted("robot steel", (0.3, 0.3, 0.31), (0.1, 0.07, 0.05), 0.56)
    print_ = mat.patches("robot decal", ((0.9, 0.86, 0.75), (0.1, 0.1, 0.11), (0.8, 0.1, 0.05)), 16, 0.01)
    eye = mat.glow("robot eye", (0.35, 0.95, 1.0), 2.2)
    root = new_object("robot", None)
    root.scale = (1.2,) * 3
    body = new_object("robot body", None, parent=root)
    box("torso", (0.5, 0.36, 0.48), orange, (0, 0, 0.68), parent=body, bevel=0.05)
    box("belly", (0.4, 0.02, 0.2), teal, (0, -0.185, 0.6), parent=body, bevel=0.008)
    box("decal", (0.17, 0.012, 0.11), print_, (0.12, -0.186, 0.81), parent=body)
    box("pack", (0.36, 0.14, 0.36), teal, (0, 0.24, 0.7), parent=body, bevel=0.03)
    rod("neck", (0, 0, 0.9), (0, 0, 1.0), 0.06, steel, body)
    head = new_object("robot head", None, at=(0, 0, 1.14), parent=body)
    box("skull", (0.42, 0.32, 0.3), teal, parent=head, bevel=0.06)
    box("face", (0.32, 0.02, 0.17), steel, (0, -0.165, 0), parent=head, bevel=0.008)
    for x in (-0.08, 0.08):
        ball("eye", 0.042, eye, (x, -0.172, 0.01), head, 3)
        rod("ear", (2.6 * x, 0, 0), (3.0 * x, 0, 0), 0.07, orange, head)
    rod("antenna", (0.1, 0, 0.14), (0.14, 0, 0.34), 0.012, steel, head)
    ball("antenna tip", 0.04, orange, (0.14, 0, 0.36), head, 3)
    limbs = {"root": root, "body": body, "head": head}
    for side, x in (("left", -1), ("right", 1)):
        leg = new_object(f"{side} leg", None, at=(0.14 * x, 0, 0.47), parent=root)
        rod("thigh", (0, 0, 0), (0, 0, -0.38), 0.065, steel, leg)
        box("boot", (0.17, 0.28, 0.13), orange, (0, -0.04, -0.4), parent=leg, bevel=0.03)
        arm = new_object(f"{side} arm", None, at=(0.31 * x, 0, 0.84), parent=body)
        ball("shoulder", 0.09, teal, parent=arm, subdivisions=3)
        rod("upper arm", (0, 0, 0), (0.05 * x, 0, -0.24), 0.05, steel, arm)
        lathe("cuff", [(0, -0.42), (0.1, -0.42), (0.07, -0.2), (0, -0.2)], orange, (0.05 * x, 0, 0), parent=arm)
        limbs |= {f"{side} leg": leg, f"{side} arm": arm}
    return limbs


def pose_movers(limbs: dict[str, bpy.types.Object], frame: int) -> None:
    """Put the robot and the ball where they are at `frame`, counted from 0; both move in every frame."""
    t = frame / FPS
    phase = np.pi * t / STEP_S
    start, end = Vector((2.0, 5.35, 0)), Vector((0.15, 4.1, 0))
    limbs["root"].location = start.lerp(end, frame / (FRAMES - 1))
    limbs["root"].rotation_euler = (0, 0, np.arctan2(end.x - start.x, start.y - end.y) * 0.62)
    limbs["body"].location.z = 0.05 * abs(np.cos(phase))
    limbs["body"].rotation_euler = (0.04, 0.07 * np.sin(phase), 0.12 * np.sin(phase))
    limbs["head"].rotation_euler = (
        0.05 * np.sin(2 * phase),
        0.06 * np.sin(phase + 0.6),
        0.3 + 0.15 * np.sin(0.8 * phase),
    )
    for side, sign in (("left", 1), ("right", -1)):
        limbs[f"{side} leg"].rotation_euler = (sign * STRIDE * np.sin(phase), 0, 0)
        limbs[f"{side} arm"].rotation_euler = (-sign * 1.2 * STRIDE * np.sin(phase), 0, 0)
    bounce = (t / BOUNCE_S + 0.3) % 1
    height = 4 * BOUNCE_M * bounce * (1 - bounce)
    limbs["ball"].location = (-1.2 + 0.35 * t, 3.05 + 0.15 * t, BALL_RADIUS + height)
    limbs["ball"].rotation_euler = (1.9 * t, 2.4 * t, 0.7 * t)


def camera_pose(frame: int) -> Matrix:
    """World matrix of the Blender camera at `frame`: someone stands up from a crouch and steps to the right."""
    s = frame / (FRAMES - 1)
    ease = s * s * (3 - 2 * s) * 0.45 + s * 0.55
    place = Vector((-0.75, -0.55, 0.85)).lerp(Vector((0.85, 0.2, 1.75)), ease)
    look_at = Vector((-0.1, 5.2, 1.25)).lerp(Vector((0.3, 5.2, 1.12)), ease)
    place += Vector([0.022 * wobble(frame, k) for k in range(3)])
    turn = Euler([np.radians(0.45) * wobble(frame, 3 + k) for k in range(3)]).to_matrix()
    aim = (look_at - place).to_track_quat("-Z", "Y").to_matrix()
    return Matrix.Translation(place) @ (aim @ turn).to_4x4()


def wobble(frame: int, channel: int) -> float:
    """Smooth noise of about unit size: what a hand does at 0.5 to 2.4 Hz, different for every channel."""
    rng = np.random.default_rng(100 + channel)
    frequencies, phases = rng.uniform(0.5, 2.4, 4), rng.uniform(0, 2 * np.pi, 4)
    return float(np.sin(2 * np.pi * frequencies * frame / FPS + phases) @ (0.8 / np.sqrt(frequencies)))


def build_camera() -> bpy.types.Object:
    """The scene's camera with the known lens."""
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.sensor_fit, camera.data.sensor_width, camera.data.lens = "HORIZONTAL", SENSOR_MM, FOCAL_MM
    camera.data.clip_start, camera.data.clip_end = 0.05, 100.0
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    return camera
