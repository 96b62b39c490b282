"""Compare a capture with the ground truth of its clip: camera path, lens, static depth and motion masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .geometry.trajectory import absolute_trajectory_error, has_pose
from .truth import Truth, read_truth
from .wire import CONFIDENCE_MEASURED, Capture, UserError, read_capture
from .wire import capture as capture_format

_NAN = float("nan")


@dataclass(frozen=True)
class Evaluation:
    """How far a capture is from the truth.

    Lengths are in metres after the alignment that `scale_source` names: 'metric' (the capture's own scale),
    'camera path' (the similarity that brings its path to the true one) or 'median depth' (when the camera stands
    still, or the paths cannot be aligned; then the camera's figures are NaN). Depth figures are over the static
    pixels of the truth where the capture claims a measured depth, `measured` is the share of static pixels where it
    does. Mask figures are over all plate pixels of all frames; `leaked` is the share of moving pixels that the
    capture shows as static with a measured depth.
    """

    frames: int
    cameras: int
    path_length_m: float
    ate_m: float
    ate_relative: float
    rotation_deg: float
    focal_error: float
    scale_source: str
    depth_abs_rel: float
    depth_delta_125: float
    measured: float
    mask_iou: float
    mask_precision: float
    mask_recall: float
    leaked: float

    def rows(self) -> list[tuple[str, str]]:
        """(what, figure) in words, for a table."""
        return [
            ("Frames with a camera", f"{self.cameras} of {self.frames}"),
            ("Scale taken from", self.scale_source),
            ("Camera path error (ATE)", f"{self.ate_relative:.2%} of {self.path_length_m:.2f} m"),
            ("Camera rotation", f"{self.rotation_deg:.3f} degrees"),
            ("Focal length error", f"{self.focal_error:.2%}"),
            ("Static depth error (Abs Rel)", f"{self.depth_abs_rel:.4f}"),
            ("Static depth within 1.25x", f"{self.depth_delta_125:.2%}"),
            ("Static pixels measured", f"{self.measured:.1%}"),
            ("Motion mask IoU", f"{self.mask_iou:.3f}"),
            ("Motion mask precision, recall", f"{self.mask_precision:.3f}, {self.mask_recall:.3f}"),
            ("Moving pixels taken for static", f"{self.leaked:.2%}"),
        ]

    def table(self) -> str:
        """The figures as lines of text."""
        return _table(self.rows())


def main_evaluate(
    capture: Path,
    truth: Path | None = None,
    *,
    poses: Path | None = None,
    depth: Path | None = None,
    masks: Path | None = None,
    depth_scale: float | None = None,
    max_depth: float = float("inf"),
) -> str:
    """The table that `python -m backend evaluate CAPTURE [TRUTH]` prints.

    `truth` is a truth.npz, or a folder with one or with plain files; single plain files come before those of the
    folder. A truth.npz gives the figures of `Evaluation` and then those of the protocols in print, plain files the
    latter. Raises UserError as `evaluate` and `given_in` do.
    """
    from .evaluation.standard import given_by, given_in, standard_figures

    found = read_capture(capture)
    plain = poses or depth or masks
    if truth is not None and not Path(truth).exists():
        raise UserError(f"There is no ground truth at {truth}", "choose a truth.npz, or a folder of plain files")
    if truth is not None and Path(truth).is_dir() and not plain and (Path(truth) / "truth.npz").is_file():
        truth = Path(truth) / "truth.npz"
    if truth is not None and Path(truth).is_file():
        if plain:
            raise UserError("Both a truth.npz and single files were given", "give one or the other")
        exact, plate_masks = read_truth(truth), read_plate_masks(found)
        rows = compare(found, plate_masks, exact).rows()
        return _table(rows + standard_figures(found, plate_masks, given_by(exact, found), max_depth).rows())
    given = given_in(found, truth, poses, depth, masks, depth_scale)
    plate_masks = read_plate_masks(found) if given.masks else None
    return _table(standard_figures(found, plate_masks, given, max_depth).rows())


def evaluate(capture_folder: Path | str, truth_path: Path | str) -> Evaluation:
    """Compare the capture in a folder with a truth.npz. Raises UserError when they are not of the same clip."""
    capture = read_capture(capture_folder)
    return compare(capture, read_plate_masks(capture), read_truth(truth_path))


def compare(capture: Capture, plate_masks: np.ndarray, truth: Truth) -> Evaluation:
    """Compare a capture and its (T, plate H, plate W) bool masks with the truth. Raises UserError as `evaluate`."""
    frames = np.array(capture.clip.frame_indices)
    if tuple(capture.clip.plate_size) != truth.plate_size or frames.max(initial=0) >= truth.frame_count:
        raise UserError(
            f"The ground truth is of {truth.frame_count} frames of {truth.plate_size}, the capture goes to frame "
            f"{frames.max(initial=0)} of {tuple(capture.clip.plate_size)}",
            "choose the truth of the same clip",
        )
    if capture.clip.k1 or capture.clip.k2:
        raise UserError("The ground truth has no lens distortion and the capture has", "set the distortion to 0")
    true_moves, moving = truth.masks[frames], truth.depth_moves[frames]
    depth, measured = _sample(capture, truth)
    true_depth = truth.depth[frames]
    static = (true_depth > 0) & ~moving
    used = static & measured
    ratios = true_depth[used] / depth[used]

    try:
        path = absolute_trajectory_error(
            capture.world_from_camera, truth.world_from_camera[frames], with_scale=not capture.metric
        )
        camera = (path.path_length, path.ate_rmse, path.ate_relative, path.rotation_deg_rmse)
        scale, source = path.alignment.scale, "metric" if capture.metric else "camera path"
    except ValueError:
        camera = (_NAN,) * 4
        scale, source = (1.0, "metric") if capture.metric else (float(np.median(ratios)), "median depth")

    ratios = ratios / scale
    both, either = (plate_masks & true_moves).sum(), (plate_masks | true_moves).sum()
    leaked = moving & measured & ~plate_masks[_depth_grid(truth)]
    known = has_pose(capture.world_from_camera)
    focal = capture.plate_intrinsics[known, :2] / truth.intrinsics[frames][known, :2]
    return Evaluation(
        frames=len(frames),
        cameras=int(known.sum()),
        path_length_m=camera[0],
        ate_m=camera[1],
        ate_relative=camera[2],
        rotation_deg=camera[3],
        focal_error=_mean(np.abs(focal - 1)),
        scale_source=source,
        depth_abs_rel=_mean(np.abs(1 / ratios - 1)),
        depth_delta_125=_mean(np.maximum(ratios, 1 / ratios) < 1.25),
        measured=used.sum() / max(static.sum(), 1),
        mask_iou=both / either if either else 1.0,
        mask_precision=both / plate_masks.sum() if plate_masks.any() else _NAN,
        mask_recall=both / true_moves.sum() if true_moves.any() else _NAN,
        leaked=leaked.sum() / moving.sum() if moving.any() else 0.0,
    )


def read_plate_masks(capture: Capture) -> np.ndarray:
    """(T, plate H, plate W) bool from the capture's mask images. Raises UserError when one is missing or damaged."""
    if capture.plate_masks is not None:
        return capture.plate_masks
    width, height = capture.clip.plate_size
    masks = np.zeros((capture.frame_count, height, width), bool)
    for i in range(capture.frame_count):
        path = capture.folder / capture_format.MASK_NAME.format(i)
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if image is None or image.shape != (height, width):
            raise UserError(f"The mask {path} is missing or not of the plate's size", "make the capture again")
        masks[i] = image > 127
    return masks


def _sample(capture: Capture, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """The capture's depth at the truth's pixels, from the grid pixel they fall in, and whether it was measured."""
    xy = np.floor(capture.plate_map.to_grid(truth.depth_pixels)).astype(int)
    width, height = capture.processed_size
    inside = (xy >= 0).all(-1) & (xy < (width, height)).all(-1)
    x, y = xy[..., 0].clip(0, width - 1), xy[..., 1].clip(0, height - 1)
    depth = np.asarray(capture.depth, np.float64)[:, y, x]
    confidence = np.asarray(capture.confidence, np.float32)[:, y, x]
    return depth, inside & (depth > 0) & (confidence >= CONFIDENCE_MEASURED)


def _depth_grid(truth: Truth) -> tuple[slice, slice, slice]:
    """Where the pixels with a known depth stand in a (T, plate H, plate W) array."""
    every = slice(truth.depth_step // 2, None, truth.depth_step)
    return slice(None), every, every


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else _NAN


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:<{width}}  {figure}" for what, figure in rows)
