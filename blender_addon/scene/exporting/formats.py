"""The formats that an import can be exported to, as a table, and the one function that writes any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from ...wire.errors import UserError
from ...wire.folders import check_writable, names_in, staged_folder
from ..baseline import read_options
from ..imported import STATIC, Imported
from . import camera_files, clouds, image_sets, interchange
from .sampled import SampledCamera, clouds_of, sample_camera, sample_points, visiting


@dataclass(frozen=True)
class Request:
    """What is to be written: an import of a scene, from the first to the last scene frame, with its points or without.

    `most_points` bounds each frame's points in a GLB. `told(fraction)` hears how far it is and may raise to cancel.
    """

    imported: Imported
    scene: bpy.types.Scene
    first: int
    last: int
    points: bool = True
    most_points: int = 50_000
    told: Callable[[float], None] = lambda fraction: None

    @property
    def frames(self) -> np.ndarray:
        return np.arange(self.first, self.last + 1)

    def camera(self, frames: np.ndarray | None = None) -> SampledCamera:
        """The import's camera. Raises UserError when it was deleted."""
        camera = self.imported.camera
        if camera is None:
            raise UserError(f"The camera of {self.imported.name} was deleted", "import the capture again")
        return sample_camera(self.scene, camera, self.frames if frames is None else frames, self.told)

    def objects(self) -> list[bpy.types.Object]:
        """Root, camera, and the objects that show points where those are wanted."""
        camera = self.imported.camera
        shown = clouds_of(self.imported) if self.points else []
        return [self.imported.root, *([camera] if camera else []), *shown]


@dataclass(frozen=True)
class Format:
    """A row of the table. `suffix` is empty for a format that is a folder; `write` returns what was lost."""

    label: str
    about: str
    suffix: str
    write: Callable[[Request, Path], list[str]]
    has_points: bool = False


def write(request: Request, name: str, path: Path) -> list[str]:
    """Write one format to `path`, which appears whole or not at all; sentences on what the format does not carry.

    Raises UserError when there is nothing to write, the path is taken by something else, or the disk refuses.
    """
    kind = FORMATS[name]
    if request.last < request.first:
        raise UserError("The last frame is before the first one", "set the range again")
    path = Path(path).absolute()
    if not kind.suffix:
        if names_in(path):
            raise UserError(f"The folder {path} is not empty", "choose a new one")
        check_writable(path)
        with staged_folder(path, kind.label) as staging:
            return kind.write(request, staging)
    path = path if path.suffix.lower() == kind.suffix else path.with_name(path.name + kind.suffix)
    check_writable(path.parent / "file")
    beside = path.with_name(f".{path.stem}.partial-{os.getpid()}{kind.suffix}")  # exporters go by the suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lost = kind.write(request, beside)
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror})", "choose another place") from error
    finally:
        beside.unlink(missing_ok=True)
    return lost


def _chan(request: Request, path: Path) -> list[str]:
    camera = request.camera()
    camera_files.write_text(path, camera_files.chan(camera))
    shifted = np.abs(camera.shift).max() > 1e-6
    return ["A .chan file has no lens shift: use USD or Nuke's script for this camera"] if shifted else []


def _nuke(request: Request, path: Path) -> list[str]:
    plates = [p for p in bpy.data.movieclips if p.get("kinora_root") == request.imported.root]
    plate = bpy.path.abspath(plates[0].filepath) if plates else ""
    camera_files.write_text(path, camera_files.nuke(request.camera(), request.imported.name, plate))
    return []


def _json(request: Request, path: Path) -> list[str]:
    camera_files.write_text(path, camera_files.as_json(request.camera(), request.imported.name))
    return []


def _usd(request: Request, path: Path) -> list[str]:
    interchange.write_usd(path, request.scene, request.objects(), request.frames)
    return []


def _without_points(request: Request) -> list[bpy.types.Object]:
    return request.objects()[: 2 if request.imported.camera else 1]


def _alembic(request: Request, path: Path) -> list[str]:
    camera = request.camera()
    interchange.write_alembic(path, request.scene, _without_points(request), request.frames)
    return interchange.alembic_losses(camera)


def _fbx(request: Request, path: Path) -> list[str]:
    camera = request.camera()
    interchange.write_fbx(path, request.scene, _without_points(request), request.frames)
    return interchange.fbx_losses(camera)


def _glb(request: Request, path: Path) -> list[str]:
    camera = request.camera() if request.imported.camera else None
    shown = clouds_of(request.imported) if request.points else []
    still = [ob for ob in shown if ob in request.imported.objects(STATIC)]
    clouds.write_glb(path, request.scene, shown, still, request.frames, camera, request.most_points, request.told)
    if camera is not None and (camera.lens_is_animated or np.abs(camera.shift).max() > 1e-6):
        return ["glTF carries neither an animated lens nor its shift: use USD for this camera"]
    return []


def _ply(request: Request, folder: Path) -> list[str]:
    shown = clouds_of(request.imported)
    if not clouds.write_ply_sequence(folder, request.scene, shown, request.frames, request.told):
        raise UserError("No points are shown in these frames", "look at the filters in the Points panel")
    return []


def _image_set(writer: Callable) -> Callable[[Request, Path], list[str]]:
    def write_set(request: Request, folder: Path) -> list[str]:
        capture = request.imported.capture()
        scene_frames = read_options(request.imported.root).start_frame + capture.clip.clip_frames
        wanted = capture.has_camera & (scene_frames >= request.first) & (scene_frames <= request.last)
        frames = np.flatnonzero(wanted)
        if not len(frames):
            raise UserError("No frame of the capture with a camera is in this range", "set the range again")
        camera = request.camera(scene_frames[frames])
        still = request.imported.objects(STATIC) or clouds_of(request.imported)
        with visiting(request.scene) as go:
            points = image_sets.thinned(sample_points(still, go(int(scene_frames[frames[0]]))))
        writer(folder, capture, frames, camera, points)
        left_out = len(wanted) - len(frames)
        return [f"{left_out} frames of the capture are outside the range or have no camera"] if left_out else []

    return write_set


#: Name -> format, in the order of the menu.
FORMATS = {
    "USD": Format("USD", "Camera and points; nothing is lost", ".usdc", _usd, has_points=True),
    "ALEMBIC": Format("Alembic Camera", "The camera, for other 3D programs", ".abc", _alembic),
    "FBX": Format("FBX Camera", "The camera, for game engines; an animated lens shift is lost", ".fbx", _fbx),
    "GLB": Format("glTF", "Points that play and a camera without shift, for viewers", ".glb", _glb, has_points=True),
    "CHAN": Format("Chan Camera", "The camera as a .chan text, without lens shift", ".chan", _chan),
    "NUKE": Format("Nuke Script", "The camera with lens and shift, and the plate, to import into Nuke", ".nk", _nuke),
    "JSON": Format("JSON Camera", "Every number of the camera, for scripts", ".json", _json),
    "PLY": Format("PLY Sequence", "One file a frame with the points that are shown", "", _ply, has_points=True),
    "COLMAP": Format(
        "COLMAP Model",
        "Images, cameras and points for splats and photogrammetry",
        "",
        _image_set(image_sets.write_colmap),
    ),
    "NERFSTUDIO": Format(
        "Nerfstudio", "transforms.json with images, masks and points", "", _image_set(image_sets.write_nerfstudio)
    ),
}
