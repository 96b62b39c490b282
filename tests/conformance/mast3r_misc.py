"""Conformance of small things: poses from points, linear triangulation, training criteria, figures of localisation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.evaluation import matching, pointmaps
from backend.evaluation.localisation import LIMITS, placing_errors
from backend.evaluation.pointmaps import Both
from backend.geometry.rigid import rotation_angles_deg
from backend.geometry.triangulation import points_on_planes
from backend.localise.pose import find_pose

from .rows import Arrays, Row, absent, count, near, unchecked

#: Of criteria that are sums of float32, and of average precision, whose recorded order of equal answers is arbitrary.
LOSS, TIES = 1e-5, 2e-4
#: Pixels within which a point belongs to a pose, as recorded.
POSE_ERROR_PX = 5.0
#: Recorded ways of finding a pose; ours must be as near to the truth as the worse one.
_POSES = ("cv2", "poselib")
#: Negatives that the recorded average precision was padded with.
NEGATIVES = 40
#: What checks of their own read (mast3r_graphs.py).
ELSEWHERE = re.compile(r"(fps|ret|asmk)\.|scene_graphs$")


def check_pose(folder: Path) -> Iterator[Row]:
    """`pnp.*` of misc.npz and `pnp` of misc.json: our pose against the true one, within the recorded ones' errors."""
    arrays = _arrays(folder)
    if arrays is None or "pnp.pts2d" not in arrays:
        yield absent("pnp")
        return
    k, true = arrays["pnp.K_opencv"], arrays["pnp.gt_cam2world"]
    lens = np.array([k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5])  # from pixel centres at integers
    places, points = arrays["pnp.pts2d"].astype(float) + 0.5, arrays["pnp.pts3d"].astype(float)
    found = find_pose(places, points, lens, POSE_ERROR_PX, seed=0)
    if found is None:
        yield Row("misc pnp", False, note="no pose was found")
        return
    pose, recorded = found.world_from_camera, _json(folder).get("pnp", {})
    errors = {way: _apart(arrays[f"pnp.{way}.cam2world"], true) for way in _POSES if f"pnp.{way}.cam2world" in arrays}
    for way in (way for way in errors if way in recorded):
        yield near(f"misc pnp.{way}.cam2world, its errors", errors[way], list(recorded[way].values()), 1e-4)
    for n, unit in enumerate(("metres", "degrees")):
        yield near(f"misc pnp, {unit} to the true pose", _apart(pose, true)[n], 0, max(e[n] for e in errors.values()))
    wrong = np.flatnonzero(found.inliers == arrays["pnp.is_outlier"])
    yield count("misc pnp.is_outlier", wrong, len(points), tolerance=0.02 * len(points), of="points")
    for way in recorded.keys() - set(_POSES):
        yield unchecked(f"misc.json pnp {way}", f"the recording says: {recorded[way]}")


def check_triangulation(folder: Path) -> Iterator[Row]:
    """`tri.*` of misc.npz: points nearest to the planes through their pixels."""
    arrays = _arrays(folder)
    if arrays is None or not arrays.has("tri.pts2d", "tri.proj", "tri.out"):
        yield absent("tri")
        return
    xy, projections = arrays["tri.pts2d"], arrays["tri.proj"]
    batch, cameras, points, _ = xy.shape
    which = np.broadcast_to(np.arange(batch * points).reshape(batch, 1, points), (batch, cameras, points)).ravel()
    planes = []
    for axis in (0, 1):
        rows = projections[:, :, None, axis] - xy[..., axis, None] * projections[:, :, None, 2]
        planes.append((rows[..., :3].reshape(-1, 3), -rows[..., 3].ravel(), np.ones(which.size)))
    ours = points_on_planes(which, planes, batch * points).reshape(batch, points, 3)
    yield arrays.near("tri.out", ours, 1e-6, relative=True)


def check_criteria(folder: Path) -> Iterator[Row]:
    """`loss.*` of misc.npz with `losses` of misc.json."""
    arrays, recorded = _arrays(folder), _json(folder).get("losses", {})
    if arrays is None or not recorded:
        yield absent("losses")
        return
    given = {name[5:]: torch.from_numpy(arrays[name]) for name in arrays if name.startswith("loss.")}
    ours = {**matching_criteria(given), **point_criteria(given)}
    ours["total"] = ours["regr_optmetric_conf"] + 0.075 * ours["conf_match"]
    for name, value in recorded.items():
        if name in ours:
            tolerance = TIES if name == "ap" else LOSS
            yield near(f"misc.json {name}", float(ours[name]), value, tolerance, relative=True)
        else:
            yield unchecked(f"misc.json {name}", "no criterion of that name here")


def matching_criteria(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The criteria of descriptors, as means over valid matches."""
    xy_1, xy_2, valid = given["corres1"], given["corres2"], given["valid_corres"]
    one, two = matching.at_pixels(given["desc1"], xy_1), matching.at_pixels(given["desc2"], xy_2)
    sure_1, sure_2 = matching.at_pixels(given["desc_conf1"], xy_1), matching.at_pixels(given["desc_conf2"], xy_2)
    surprise = matching.surprise(one, two)
    answers = torch.cat([two, matching.unmatched(given["desc2"], xy_2, NEGATIVES)], 1)
    every = {
        "match_proper": surprise,
        "match_all": matching.surprise_among_all(one, two),
        "match_dual": matching.dual_surprise(one, two),
        "conf_match": matching.weighed(surprise, (sure_1 + sure_2) / 2),
        "conf_match_prod": matching.weighed(surprise, sure_1 * sure_2),
        "ap": matching.average_precision(one, answers),
    }
    return {name: values[valid].mean() for name, values in every.items()}


def point_criteria(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The criteria of points, of picture 1 plus picture 2."""
    both = {name: Both(given[f"{name}1"], given[f"{name}2"]) for name in ("gt_pts", "pred_pts", "valid", "sky", "conf")}
    predicted, valid, metric = both["pred_pts"], both["valid"], given["is_metric"]
    truth = pointmaps.in_first_camera(both["gt_pts"], given["camera_pose"])

    def trained(errors: Both) -> Tensor:
        errors, counts = pointmaps.with_sky(errors, valid, both["sky"])
        weight = pointmaps.CONFIDENCE_WEIGHT
        cost = Both(*(matching.weighed(e, c, weight) for e, c in zip(errors, both["conf"])))
        return pointmaps.mean_of_both(cost, counts)

    return {
        "regr_optmetric_conf": trained(pointmaps.relative_errors(predicted, truth, valid, metric)),
        "regr_allnorm_conf": trained(pointmaps.relative_errors(predicted, truth, valid)),
        "regr_gtscale": pointmaps.mean_of_both(pointmaps.absolute_errors(predicted, truth, valid, metric), valid),
        "regr_scaleshiftinv": pointmaps.mean_of_both(pointmaps.aligned_errors(predicted, truth, valid), valid),
    }


def check_localisation(folder: Path) -> Iterator[Row]:
    """`aggregate_stats` of misc.json: the medians and shares in its text."""
    recorded = _json(folder).get("aggregate_stats")
    if not recorded:
        yield absent("aggregate_stats")
        return
    ours = placing_errors(np.array(recorded["pose_errors"]), np.array(recorded["angular_errors"]))
    number = r"=(?:np\.float64\()?([\d.eE+-]+)"
    text = recorded["text"]
    for name, value in (("median_pos_error", ours.median_m), ("median_angular_error", ours.median_deg)):
        yield near(f"aggregate_stats {name}", value, float(re.search(name + number, text)[1]), 1e-9)
    for (metres, degrees), share in zip(LIMITS, ours.within):
        name = f"acc@{metres:g}m,{degrees:g}deg"
        yield near(f"aggregate_stats {name}", 100 * share, float(re.search(re.escape(name) + number, text)[1]), 1e-3)
    yield near("aggregate_stats images", ours.count, int(re.search(r"(\d+) images", text)[1]), 0)


def others(folder: Path) -> Iterator[Row]:
    """What no check reads in misc.npz and misc.json."""
    arrays = _arrays(folder)
    names = [*(arrays or ()), *_json(folder)]
    ours = re.compile(r"(pnp|tri|loss)\.|(pnp|losses|aggregate_stats)$")
    left = [name for name in names if not ours.match(name) and not ELSEWHERE.match(name)]
    if names:
        yield count("misc, arrays and entries that no check knows", left, len(names))
    else:
        yield absent("misc.npz, misc.json")


def _apart(pose: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Metres and degrees between two poses."""
    turn = rotation_angles_deg(pose[:3, :3].T @ other[:3, :3])
    return float(np.linalg.norm(pose[:3, 3] - other[:3, 3])), float(turn)


def _arrays(folder: Path) -> Arrays | None:
    path = folder / "misc.npz"
    return Arrays(path) if path.is_file() else None


def _json(folder: Path) -> dict:
    path = folder / "misc.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
