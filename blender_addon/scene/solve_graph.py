"""The reprojection error over the frames as a small picture: bars, red above the threshold, and what is flagged."""

from __future__ import annotations

import numpy as np

from .solve_quality import ALERT_PX, SolveQuality

# Colours are 8-bit sRGB with alpha, as Blender's interface shows them.
_BACK = (0, 0, 0, 0)
_GOOD = (102, 153, 204, 255)
_BAD = (217, 77, 64, 255)
_SWITCHED_OFF = (90, 90, 90, 255)
_THRESHOLD = (150, 150, 150, 255)
#: Width of a line: one pixel could fall between two of the screen's.
_LINE_PX = 2
_NOW = (240, 240, 240, 255)
#: Of the strip below the bars, by what the solver said: nothing, low confidence, interpolated, no camera.
_FLAG_COLOURS = (_BACK, (204, 153, 51, 255), (230, 190, 60, 255), (217, 77, 64, 255))


def picture(quality: SolveQuality, switched_off: frozenset[int], size: tuple[int, int]) -> np.ndarray:
    """(height, width, 4) uint8 with the lowest row first; a column shows the worst of the frames that fall on it.

    The bottom strip has the colour of what the solver said of the frame; bars of frames that are switched off are grey.
    """
    width, height = size
    strip = max(2, height // 16)
    pixels = np.empty((height, width, 4), np.uint8)
    pixels[:] = _BACK
    columns = _columns(quality, width)
    top = top_px(quality, switched_off)
    levels = (np.arange(height - strip) + 0.5) / (height - strip) * top
    for column in range(width):
        frames = np.flatnonzero((columns[:, 0] <= column) & (column < columns[:, 1]))
        if not frames.size:
            continue
        pixels[:strip, column] = _FLAG_COLOURS[int(quality.flags[frames].max())]
        errors = np.nan_to_num(quality.mean_px[frames])
        worst = frames[errors.argmax()]
        colour = _BAD if errors.max() > ALERT_PX else _GOOD
        pixels[strip:, column][levels < errors.max()] = _SWITCHED_OFF if int(worst) in switched_off else colour
    threshold = strip + int(ALERT_PX / top * (height - strip))
    pixels[threshold : threshold + _LINE_PX] = _THRESHOLD
    return pixels


def with_current(pixels: np.ndarray, quality: SolveQuality, scene_frame: float) -> np.ndarray:
    """The picture with a line at a scene frame, when that lies within the capture."""
    frames = quality.scene_frames
    if not frames[0] <= scene_frame <= frames[-1]:
        return pixels
    width = pixels.shape[1]
    marked = pixels.copy()
    column = int((scene_frame - frames[0] + 0.5) / (frames[-1] - frames[0] + 1) * width)
    column = min(column, width - _LINE_PX)
    marked[:, column : column + _LINE_PX] = _NOW
    return marked


def top_px(quality: SolveQuality, switched_off: frozenset[int]) -> float:
    """The error at the upper edge: twice the threshold, or more where many frames that are on are worse than that.

    A few bad ones may stick out, so that they do not press the others flat.
    """
    on = ~np.isin(np.arange(len(quality.mean_px)), list(switched_off))
    seen = quality.mean_px[np.isfinite(quality.mean_px) & on]
    return max(2 * ALERT_PX, 1.25 * float(np.percentile(seen, 90)) if seen.size else 0.0)


def _columns(quality: SolveQuality, width: int) -> np.ndarray:
    """(T, 2) first column of each frame, and the one after its last."""
    frames = quality.scene_frames.astype(float)
    begin = frames - frames[0]
    end = np.append(begin[1:], begin[-1] + 1)
    edges = np.stack([begin, end], axis=1) / end[-1] * width
    first = np.floor(edges[:, 0]).astype(int)
    return np.stack([first, np.maximum(first + 1, np.floor(edges[:, 1]).astype(int))], axis=1)
