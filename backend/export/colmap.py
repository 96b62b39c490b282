"""COLMAP model: cameras at plate resolution, and the points that the camera solve measured with their observations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..colmap import pycolmap
from ..wire import Capture
from .output import Exported, export_folder, exported


def export_colmap(capture: Capture, folder: Path) -> Exported:
    """Write the model `sparse/0`, as text, to a new folder.

    The cameras are pinholes of the undistorted plate. Points seen in fewer than two of the exported frames are left
    out; a capture without tracks gives a model without points.
    """
    model = reconstruction(capture)
    with export_folder(folder) as staging:
        target = staging / "sparse" / "0"
        target.mkdir(parents=True)
        model.write_text(target)  # text, because a cut binary file cannot be told from a whole one without risk
        verify(model, target)
        return exported(capture, staging, folder)


def reconstruction(capture: Capture) -> pycolmap.Reconstruction:
    """The capture as COLMAP sees it: image and camera ids are frame numbers counted from 1."""
    model = pycolmap.Reconstruction()
    observations = observations_by_frame(capture)
    width, height = capture.clip.plate_size
    frames = np.flatnonzero(capture.has_camera)
    plate_intrinsics = capture.plate_intrinsics
    one_lens = len(frames) > 0 and np.ptp(plate_intrinsics[frames], axis=0).max() == 0
    for frame in frames:
        camera_id = 1 if one_lens else int(frame) + 1
        if not model.exists_camera(camera_id):
            model.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    camera_id=camera_id, model="PINHOLE", width=width, height=height, params=plate_intrinsics[frame]
                )
            )
        image = pycolmap.Image(
            name=image_name(capture, frame),
            keypoints=observations[frame][1],
            camera_id=camera_id,
            image_id=int(frame) + 1,
        )
        camera_from_world = np.linalg.inv(capture.world_from_camera[frame])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera_from_world[:3]))
    add_points(model, capture, observations)
    model.update_point_3d_errors()
    return model


def image_name(capture: Capture, frame: int) -> str:
    """The plate's file for one frame of an image sequence; for a video, the source frame's number counted from 0."""
    if capture.clip.image_names:
        return Path(capture.clip.image_names[frame]).name
    return f"frame_{capture.clip.frame_indices[frame]:06d}.png"


def observations_by_frame(capture: Capture) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each frame with a camera, the points it sees and their (N, 2) plate pixels; points seen once are left out."""
    frames = np.flatnonzero(capture.has_camera)
    tracks = capture.tracks
    if tracks is None:
        return {f: (np.zeros(0, int), np.zeros((0, 2))) for f in frames}
    kept = capture.has_camera[tracks.frame]
    views = np.bincount(tracks.point[kept], minlength=len(tracks.points_world))
    kept &= views[tracks.point] >= 2
    selected = {f: kept & (tracks.frame == f) for f in frames}
    return {f: (tracks.point[rows], np.asarray(tracks.plate_xy[rows], np.float64)) for f, rows in selected.items()}


def add_points(model: pycolmap.Reconstruction, capture: Capture, observations: dict) -> None:
    """Add every point that has a view, tied to the keypoints of the images that see it."""
    views: dict[int, pycolmap.Track] = {}
    for frame, (points, _) in observations.items():
        for keypoint, point in enumerate(points.tolist()):
            views.setdefault(point, pycolmap.Track()).add_element(int(frame) + 1, keypoint)
    for point, track in sorted(views.items()):
        model.add_point3D(capture.tracks.points_world[point], track, capture.tracks.colours[point])


def verify(model: pycolmap.Reconstruction, folder: Path) -> None:
    """Raise OSError unless the files hold the whole model: COLMAP does not say when the disk was full."""
    whole = all(path.read_bytes().endswith(b"\n") for path in folder.iterdir())
    try:
        written = pycolmap.Reconstruction(folder) if whole else pycolmap.Reconstruction()
    except (RuntimeError, ValueError, LookupError) as error:
        raise OSError(f"COLMAP cannot read back what it wrote: {error}") from error
    if (written.num_images(), written.num_points3D()) != (model.num_images(), model.num_points3D()):
        raise OSError("COLMAP wrote a part of the model only")
