"""A capture against ground truth by the protocols in print, as one table; what was not given is NaN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..geometry.camera import pixel_centres
from ..truth import Truth
from ..wire import Capture, UserError
from .depth import ALIGNMENTS, DepthError, depth_error
from .files import DEPTH, MASKS, POSES, Pictures, read_depth, read_masks, read_poses
from .path import PathError, path_error

#: Of a clip with more true depths than this, every other pixel is compared, or fewer.
_MOST_DEPTHS = 40_000_000


@dataclass(frozen=True)
class Given:
    """Truth of a capture's T frames, each part of it or None.

    `poses` (T, 4, 4), NaN where unknown, and `matched_by`, how they were found; `depth` with 0 where unknown, which
    covers the plate evenly, or stands at `depth_pixels` (h, w, 2) of it; `masks` bool, which cover the plate.
    """

    poses: np.ndarray | None = None
    matched_by: str = "frame number"
    depth: Pictures | None = None
    depth_pixels: np.ndarray | None = None
    masks: Pictures | None = None


@dataclass(frozen=True)
class Standard:
    """The figures of one capture; see `path_error`, `depth_error`.

    `seen` is the share of the true depths where the capture has one too. Mask figures are over all pixels;
    `mask_frames` is the mean IoU of the frames in which something moves.
    """

    path: PathError
    matched_by: str
    depth: dict[str, DepthError]
    seen: float
    max_depth: float
    mask_iou: float
    mask_frames: float

    def rows(self) -> list[tuple[str, str]]:
        """(what, figure) in words, for a table."""
        path, far = self.path, f", up to {self.max_depth:g}" if np.isfinite(self.max_depth) else ""
        rows = [
            ("Camera path ATE, after Sim(3)", f"{path.ate:.5g} ({path.compared} frames, by {self.matched_by})"),
            ("Camera path RPE, translation", f"{path.rpe:.5g}"),
            ("Camera path RPE, rotation", f"{path.rpe_deg:.4g} degrees"),
            (f"True depth that was found{far}", f"{self.seen:.1%}"),
        ]
        for name, error in self.depth.items():
            figures = f"Abs Rel {error.abs_rel:.4f}, within 1.25x {error.delta_125:.2%}"
            rows.append((f"Video depth, {name}", figures))
        rows.append(("Masks IoU, all pixels", f"{self.mask_iou:.3f}"))
        rows.append(("Masks IoU, mean of frames", f"{self.mask_frames:.3f}"))
        return rows


def given_in(
    clip_of: Capture,
    folder: Path | None = None,
    poses: Path | None = None,
    depth: Path | None = None,
    masks: Path | None = None,
    depth_scale: float | None = None,
) -> Given:
    """Truth in plain files, each named, or found in a folder by its name there. Raises UserError when there is none."""
    clip = clip_of.clip
    if folder is not None:
        poses, depth, masks = poses or _one(folder, POSES), depth or _one(folder, DEPTH), masks or _one(folder, MASKS)
    if not (poses or depth or masks):
        raise UserError(
            f"There is no ground truth in {folder}" if folder else "No ground truth was given",
            f"give --poses, --depth or --masks, or a folder with {POSES[0]}, {DEPTH[0]} or {MASKS[0]}",
        )
    found, how = read_poses(poses, clip) if poses else (None, "")
    return Given(
        poses=found,
        matched_by=how,
        depth=read_depth(depth, clip, depth_scale) if depth else None,
        masks=read_masks(masks, clip) if masks else None,
    )


def given_by(truth: Truth, capture: Capture) -> Given:
    """All that a truth.npz knows of a capture's frames."""
    frames = capture.clip.frame_indices
    return Given(
        poses=truth.world_from_camera[list(frames)],
        depth=Pictures(lambda k: truth.depth[frames[k]], len(frames)),
        depth_pixels=truth.depth_pixels,
        masks=Pictures(lambda k: truth.masks[frames[k]], len(frames)),
    )


def standard_figures(
    capture: Capture, plate_masks: np.ndarray | None, given: Given, max_depth: float = np.inf
) -> Standard:
    """Compare a capture and its (T, plate H, plate W) bool masks with what is given.

    Depth counts where the truth is below `max_depth` and the capture has any depth, measured or not. Raises UserError
    when the capture's lens has distortion, as truth in pictures has none.
    """
    if (capture.clip.k1 or capture.clip.k2) and (given.depth or given.masks):
        raise UserError("The ground truth has no lens distortion and the capture has", "set the distortion to 0")
    nan = float("nan")
    path = PathError(nan, nan, nan, 0)
    if given.poses is not None:
        path = path_error(capture.world_from_camera, given.poses)
    depths = Depths(np.zeros(0), np.zeros(0), 0, nan)
    if given.depth is not None:
        depths = compared_depths(capture, given, max_depth)
    names = [name for name in ALIGNMENTS if name != "none" or capture.metric]
    iou, per_frame = (nan, nan) if given.masks is None else _masks(plate_masks, given.masks)
    return Standard(
        path=path,
        matched_by=given.matched_by or "nothing",
        depth={name: depth_error(depths.estimate, depths.truth, name, max_depth) for name in names},
        seen=depths.seen,
        max_depth=max_depth,
        mask_iou=iou,
        mask_frames=per_frame,
    )


@dataclass(frozen=True)
class Depths:
    """Depth of a capture and the true one, (N,) each, where both are known.

    `pixels` of the truth were to be compared, of which N may be a sample; `seen` is the share of them that could be.
    """

    estimate: np.ndarray
    truth: np.ndarray
    pixels: int
    seen: float


def compared_depths(capture: Capture, given: Given, max_depth: float) -> Depths:
    """A capture's depth at the true pixels whose depth is below `max_depth`."""
    height, width = given.depth.read(0).shape
    pixels = given.depth_pixels
    if pixels is None:
        pixels = plate_pixels(height, width, capture.clip.plate_size)
    every = int(np.ceil(np.sqrt(height * width * given.depth.count / _MOST_DEPTHS)))
    at = capture.plate_map.to_grid(pixels[::every, ::every])
    estimates, truths, wanted = [], [], 0
    for k in range(given.depth.count):
        true = given.depth.read(k)
        if true.shape != (height, width):
            raise UserError(f"The true depth of frame {k} is of another size than that of the first")
        true = true[::every, ::every]
        found = sampled_depth(capture.depth[k], at)
        counts = (true > 0) & (true < max_depth)
        both = counts & (found > 0)
        wanted += int(counts.sum())
        estimates.append(found[both])
        truths.append(true[both])
    estimate, true = np.concatenate(estimates), np.concatenate(truths)
    return Depths(estimate, true, wanted * every**2, len(true) / wanted if wanted else float("nan"))


def plate_pixels(height: int, width: int, plate_size: tuple[int, int]) -> np.ndarray:
    """(h, w, 2) where on the plate the pixels of a picture stand that covers it evenly."""
    return pixel_centres(width, height) * plate_size / (width, height)


def sampled_depth(depth: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Depth (H, W) at edge-origin pixels `at` (..., 2): bicubic, as the protocol has it; 0 outside and where unknown.

    Next to a pixel of unknown depth the nearest one counts alone, since a mix with 0 would be no depth at all.
    """
    depth = np.ascontiguousarray(depth, np.float32)
    height, width = depth.shape
    x, y = (np.ascontiguousarray(at[..., k] - 0.5, np.float32) for k in (0, 1))
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    smooth = cv2.remap(depth, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    nearest = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    known = cv2.erode(np.uint8(depth > 0), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_REPLICATE)
    all_known = cv2.remap(known, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) > 0
    return np.where(inside, np.where(all_known & (smooth > 0), smooth, nearest), 0)


def _masks(found: np.ndarray, true: Pictures) -> tuple[float, float]:
    """IoU over all pixels, and the mean over the frames in which something moves; NaN where nothing ever does."""
    both = either = 0
    per_frame = []
    for k in range(true.count):
        moves, said = true.read(k), np.asarray(found[k])
        if said.shape != moves.shape:
            said = cv2.resize(np.uint8(said), moves.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        shared, joined = int((said & moves).sum()), int((said | moves).sum())
        both, either = both + shared, either + joined
        if moves.any():
            per_frame.append(shared / joined)
    return both / either if either else 1.0, float(np.mean(per_frame)) if per_frame else float("nan")


def _one(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these that the folder holds."""
    return next((Path(folder) / name for name in names if (Path(folder) / name).exists()), None)
