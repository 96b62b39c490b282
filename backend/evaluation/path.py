"""Camera paths as papers measure them, by the evo library: ATE and RPE after one similarity for the whole path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.trajectory import has_pose


@dataclass(frozen=True)
class PathError:
    """Root mean squares after the Sim(3) alignment of the camera centres (Umeyama 1991), in the truth's unit.

    `ate` of the centres' distances; `rpe` and `rpe_deg` of the motion from each frame to the next one compared.
    `compared` frames have a pose in both paths. NaN where a path has no extent to align by.
    """

    ate: float
    rpe: float
    rpe_deg: float
    compared: int


def path_error(estimate: np.ndarray, truth: np.ndarray) -> PathError:
    """Error of (T, 4, 4) world_from_camera poses against the true ones; NaN poses in either are left out."""
    from evo.core import metrics
    from evo.core.geometry import GeometryException
    from evo.core.trajectory import PosePath3D

    both = has_pose(estimate) & has_pose(truth)
    compared = int(both.sum())
    nothing = PathError(*[float("nan")] * 3, compared)
    if compared < 3:
        return nothing
    true, found = (PosePath3D(poses_se3=list(np.float64(poses[both]))) for poses in (truth, estimate))
    try:
        found.align(true, correct_scale=True)
    except GeometryException:  # a camera that stands still, or goes straight
        return nothing

    def rms(metric: metrics.PE) -> float:
        metric.process_data((true, found))
        return float(metric.get_statistic(metrics.StatisticsType.rmse))

    part, step = metrics.PoseRelation, {"delta": 1, "delta_unit": metrics.Unit.frames, "all_pairs": False}
    return PathError(
        ate=rms(metrics.APE(part.translation_part)),
        rpe=rms(metrics.RPE(part.translation_part, **step)),
        rpe_deg=rms(metrics.RPE(part.rotation_angle_deg, **step)),
        compared=compared,
    )
