"""The COLMAP database of a shot: one camera, its frames, and tracks as verified matches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..colmap import pycolmap
from ..run import Run
from .tracks import Observations

#: A frame is matched with those this many frames on: near ones join tracks, far ones show parallax.
OFFSETS = (1, 2, 4, 8, 16, 32)
#: Fewest shared tracks that make a pair of frames worth a geometry.
MIN_SHARED = 15
#: Tracks are mostly right, so far fewer trials find a pair's geometry than among photographs' matches.
MAX_TRIALS = 1000


def write_database(
    path: Path, observations: Observations, frame_count: int, size: tuple[int, int], focal_px: float, run: Run
) -> None:
    """Write tracks to a new database, whose images T are numbered from 1, and verify them pair by pair.

    `size` is (width, height); the camera is a pinhole with its principal point in the middle.
    """
    o = observations.where(np.lexsort([observations.track, observations.frame]))
    of_frame = [slice(*np.searchsorted(o.frame, [t, t + 1])) for t in range(frame_count)]
    path.unlink(missing_ok=True)
    with pycolmap.Database.open(path) as db, pycolmap.DatabaseTransaction(db):
        camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", focal_px, *size)
        camera.has_prior_focal_length = True
        db.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(camera.sensor_id)
        db.write_rig(rig, use_rig_id=True)
        for t in range(frame_count):
            image = pycolmap.Image(name=f"{t:06d}", camera_id=1, image_id=t + 1)
            db.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=t + 1, rig_id=1)
            frame.add_data_id(image.data_id)
            db.write_frame(frame, use_frame_id=True)
            db.write_keypoints(t + 1, o.xy[of_frame[t]].astype(np.float32))
        for a in range(frame_count):
            for b in (a + k for k in OFFSETS if a + k < frame_count):
                _, in_a, in_b = np.intersect1d(o.track[of_frame[a]], o.track[of_frame[b]], True, True)
                if len(in_a) >= MIN_SHARED:
                    db.write_matches(a + 1, b + 1, np.stack([in_a, in_b], axis=1).astype(np.uint32))
    run.check()
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = run.seed
    geometry.ransac.max_error = max(1.0, max(size) / 1000)
    geometry.ransac.max_num_trials = MAX_TRIALS
    pycolmap.geometric_verification(
        path,
        pycolmap.GeometricVerifierOptions(num_threads=run.workers),
        pycolmap.ExistingMatchedPairingOptions(),
        geometry,
    )
