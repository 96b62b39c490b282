"""Render the demo clip and its exact truth: `python -m benchmarks.demo_clip.make [--frames 0 24 47 --stills DIR]`.

Runs where `bpy` is installed, on the CPU, in some twenty minutes on two cores. The beauty pass is Cycles with
OpenImageDenoise; depth and masks come from a second pass of one sample through every pixel's centre, in which each
surface emits its z-depth and its object's pass index. Writes clip.mp4 and truth.npz beside this file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import bpy
import numpy as np

from backend.truth import Truth, write_truth

from . import action, courtyard
from .materials import Material

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 640, 360
SAMPLES = 8
OPENCV_FROM_BLENDER = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes: x right, y down, z forward
OPENCV_WORLD = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # Blender's z up to y down


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="*", help="render only these frames, as stills")
    parser.add_argument("--stills", type=Path, help="where the stills go")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    arguments = parser.parse_args()
    began = time.monotonic()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    courtyard.build()
    limbs, camera = action.build_movers(), action.build_camera()
    frames = range(action.FRAMES) if arguments.frames is None else arguments.frames

    def shoot(what: str, take) -> list:
        shots = []
        for frame in frames:
            bpy.context.scene.frame_current = frame
            action.pose_movers(limbs, frame)
            camera.matrix_world = action.camera_pose(frame)
            bpy.context.view_layer.update()
            shots.append(take())
            print(f"{what}, frame {frame}: {time.monotonic() - began:.0f} s", flush=True)
        return shots

    with tempfile.TemporaryDirectory() as scratch:
        poses = shoot("camera", lambda: OPENCV_WORLD @ np.array(camera.matrix_world) @ OPENCV_FROM_BLENDER)
        depths, indices = zip(*shoot("depth and mask", lambda: render_depth_and_index(Path(scratch))))
        plates = shoot("plate", lambda: render_plate(Path(scratch), arguments.samples))
    masks = np.stack(indices) == action.MOVES
    print(f"{masks.mean():.1%} of the pixels move, at most {masks.mean(axis=(1, 2)).max():.1%} in a frame")
    if arguments.stills:
        arguments.stills.mkdir(parents=True, exist_ok=True)
        for frame, plate in zip(frames, plates):
            save_image(plate, arguments.stills / f"plate_{frame:04d}.png")
        return
    focal_px = action.FOCAL_MM / action.SENSOR_MM * WIDTH
    intrinsics = np.tile([focal_px, focal_px, WIDTH / 2, HEIGHT / 2], (len(plates), 1))
    encode(plates, HERE / "clip.mp4")
    write_truth(Truth.from_plates(np.stack(poses), intrinsics, np.stack(depths), masks, step=2), HERE / "truth.npz")
    for name in ("clip.mp4", "truth.npz"):
        print(f"{name}: {(HERE / name).stat().st_size / 1e6:.2f} MB")


def render_plate(scratch: Path, samples: int) -> np.ndarray:
    """(H, W, 3) uint8: the picture that the camera takes."""
    scene = _cycles(WIDTH, HEIGHT, samples)
    scene.cycles.use_denoising, scene.cycles.denoiser = True, "OPENIMAGEDENOISE"
    scene.cycles.denoising_quality, scene.cycles.denoising_prefilter = "FAST", "FAST"
    scene.cycles.max_bounces, scene.cycles.diffuse_bounces = 2, 2
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 1.3
    scene.view_settings.view_transform, scene.view_settings.look = "AgX", "AgX - Medium High Contrast"
    scene.view_settings.exposure = 0.45
    bpy.context.view_layer.material_override = None
    return np.round(_render(scratch / "plate.png", "PNG")[..., :3] * 255).astype(np.uint8)


def render_depth_and_index(scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) z-depth in metres, 0 where the sky is, and (H, W) pass index, both at the centre of each pixel."""
    scene = _cycles(WIDTH, HEIGHT, 1)
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 0
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BOX", 0.01
    background = next(n for n in scene.world.node_tree.nodes if n.type == "BACKGROUND").inputs["Strength"]
    background.default_value, kept = 0.0, background.default_value
    bpy.context.view_layer.material_override = _data_material()
    pixels = _render(scratch / "data.exr", "OPEN_EXR")
    background.default_value = kept
    return pixels[..., 0], np.round(pixels[..., 1]).astype(int)


def _data_material() -> bpy.types.Material:
    """A surface that emits its z-depth as red and its object's pass index as green."""
    if found := bpy.data.materials.get("data"):
        return found
    m = Material("data")
    depth = m.node("CameraData").outputs["View Z Depth"]
    colour = m.node("CombineXYZ", {"X": depth, "Y": m.node("ObjectInfo").outputs["Object Index"]}).outputs[0]
    m.tree.links.new(m.node("Emission", {"Color": colour}).outputs[0], m.node("OutputMaterial").inputs["Surface"])
    return m.material


def _cycles(width: int, height: int, samples: int) -> bpy.types.Scene:
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples = "CPU", samples
    scene.cycles.seed = scene.frame_current  # noise that stands still in the picture would be tracked
    scene.cycles.use_adaptive_sampling = False
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = width, height, 100
    scene.render.use_motion_blur = False
    scene.render.use_persistent_data = True
    return scene


def _render(path: Path, file_format: str) -> np.ndarray:
    """(H, W, 4) float pixels, first row on top, of the scene rendered to `path`."""
    scene = bpy.context.scene
    scene.render.filepath = str(path)
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode = file_format, "RGBA" if file_format == "OPEN_EXR" else "RGB"
    settings.color_depth = "32" if file_format == "OPEN_EXR" else "8"
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path), check_existing=False)
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)[::-1]


def encode(plates: list[np.ndarray], path: Path) -> None:
    """H.264 in BT.709, as a camera writes it."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(action.FPS), options={"crf": "17", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = 1
        context.color_range = 1
        for plate in plates:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(plate), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode())


def save_image(pixels: np.ndarray, path: Path) -> None:
    av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").to_image().save(path)


if __name__ == "__main__":
    main()
