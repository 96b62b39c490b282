"""One picture of a capture: plate, render, depth, motion mask and camera path, composed with captions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backend.geometry.trajectory import align_trajectories, has_pose
from backend.wire import CONFIDENCE_MEASURED, Capture

PANEL = (640, 360)
GAP, CAPTION = 16, 40
BACKGROUND, INK, QUIET, ACCENT = (24, 25, 28), (232, 232, 228), (150, 152, 158), (255, 138, 48)


@dataclass(frozen=True)
class Panel:
    """A picture (H, W, 3) uint8 with a caption and a quieter remark."""

    picture: np.ndarray
    caption: str
    remark: str = ""


def compose(panels: list[Panel], columns: int = 3) -> Image.Image:
    """The panels in rows of `columns`, each scaled to fit, with its caption below."""
    rows = -(-len(panels) // columns)
    width, height = PANEL
    size = (GAP + columns * (width + GAP), GAP + rows * (height + CAPTION + GAP))
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(19), ImageFont.load_default(15)
    for i, panel in enumerate(panels):
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * (height + CAPTION + GAP)
        sheet.paste(_fit(panel.picture), (x, y))
        draw.text((x + 2, y + height + 10), panel.caption, INK, font)
        after = x + 14 + draw.textlength(panel.caption, font)
        draw.text((after, y + height + 14), panel.remark, QUIET, small)
    return sheet


def depth_picture(capture: Capture, frame: int) -> np.ndarray:
    """Depth of a frame in colours, near is bright; what was filled in rather than measured is darker."""
    depth, confidence = np.asarray(capture.depth[frame]), np.asarray(capture.confidence[frame], np.float32)
    seen = depth > 0
    inverse = np.divide(1.0, depth, where=seen, out=np.zeros_like(depth))
    low, high = np.percentile(inverse[seen & (confidence >= CONFIDENCE_MEASURED)], (2, 98))
    level = np.uint8(255 * np.clip((inverse - low) / (high - low), 0.02, 1) ** 0.7)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    colours[confidence < CONFIDENCE_MEASURED] *= 0.55
    colours[~seen] = BACKGROUND
    return np.uint8(colours)


def mask_picture(plate: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The plate in grey with the mask (H, W) in colour, and the outline of the true mask."""
    grey = np.repeat(plate.mean(axis=2, keepdims=True) * 0.5 + 20, 3, axis=2)
    picture = np.where(mask[..., None], 0.45 * plate + 0.55 * np.array(ACCENT), grey).astype(np.uint8)
    outlines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(picture), outlines, -1, INK, 1, cv2.LINE_AA)


def path_picture(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The camera path from above and from behind: truth as a broad pale line, estimate (T, 4, 4) in colour on it."""
    known = has_pose(estimate)
    solved = align_trajectories(estimate, truth).apply_to_poses(estimate[known])
    scale = 3  # drawn large and shrunk, for smooth lines
    width, height = (scale * side for side in PANEL)
    image = Image.new("RGB", (width, height), (32, 33, 37))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(15 * scale)
    spread = np.concatenate([truth[:, :3, 3], solved[:, :3, 3]])
    middle, extent = (spread.max(0) + spread.min(0)) / 2, np.ptp(spread, axis=0)
    px_per_m = min(0.42 * width / (extent[0] + 0.9), 0.62 * height / (max(extent[1], extent[2]) + 0.5))
    views = (("From above", 0.26, (0, 2), (1, -1)), ("From behind", 0.75, (0, 1), (1, 1)))
    for label, centre, axes, signs in views:

        def place(points, centre=centre, axes=axes, signs=signs):
            flat = (points[..., axes] - middle[list(axes)]) * signs * px_per_m
            return [tuple(p) for p in (flat + np.array([centre * width, 0.5 * height])).reshape(-1, 2)]

        draw.text((centre * width - 0.2 * width, 14 * scale), label, QUIET, font)
        draw.line(place(truth[:, :3, 3]), (110, 112, 120), 9 * scale, "curve")
        if axes == (0, 2):
            reach = np.array([[-0.25, 0, 0.4], [0.25, 0, 0.4]])
            for pose in solved[:: max(1, len(solved) // 7)]:
                left, right = reach @ pose[:3, :3].T + pose[:3, 3]
                draw.line(place(np.stack([left, pose[:3, 3], right])), (96, 150, 210), scale, "curve")
        draw.line(place(solved[:, :3, 3]), ACCENT, 3 * scale, "curve")
        for x, y in place(solved[::6, :3, 3]):
            draw.ellipse((x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale), ACCENT)
    start, end = (0.06 * width, 0.92 * height), (0.06 * width + px_per_m / 2, 0.92 * height)
    draw.line([start, end], INK, 2 * scale)
    draw.text((end[0] + 8 * scale, end[1] - 10 * scale), "0.5 m", INK, font)
    return np.asarray(image.resize(PANEL, Image.LANCZOS))


def _fit(picture: np.ndarray) -> Image.Image:
    """The picture scaled into a panel, centred on the background."""
    image = Image.fromarray(np.ascontiguousarray(picture, np.uint8))
    scale = min(PANEL[0] / image.width, PANEL[1] / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.LANCZOS)
    panel = Image.new("RGB", PANEL, BACKGROUND)
    panel.paste(image, ((PANEL[0] - image.width) // 2, (PANEL[1] - image.height) // 2))
    return panel
