"""What moves: scores made masks, sharpened, joined with the user's, and brought to plate resolution."""

from __future__ import annotations

import cv2
import numpy as np

from ..classical.motion_mask import tidy
from ..classical.plates import plate_masks
from ..clip import Clip
from ..run import Run
from ..wire import MonST3RSettings
from .pictures import Pictures

#: Specks and holes of a smaller share of the picture than this are no movers, or no holes in one.
SMALLEST = 1 / 1500


def plate_movers(
    scores: np.ndarray,
    given: np.ndarray | None,
    clip: Clip,
    pictures: Pictures,
    options: MonST3RSettings,
    with_flow: bool,
    run: Run,
) -> tuple[np.ndarray, np.ndarray]:
    """(T, H, W) masks on the grid and (T, plate H, plate W) ones, from motion scores (T, H, W) and given masks.

    SAM 2 refines them where the settings ask for it. Raises UserError when it is asked for and not there.
    """
    masks = np.zeros(scores.shape, bool)
    replaced = given is not None and options.user_masks == "replace"
    if with_flow and options.find_movers and not replaced:
        width, height = pictures.size
        for t in range(len(scores)):
            masks[t] = tidy(np.asarray(scores[t], np.float32) > options.mover_threshold, width * height * SMALLEST)
    if options.refine_masks != "none" and masks.any():
        from ..nets.segment import load_segmenter, refine_masks
        from ..nets.weights import find_installed

        rough = pictures.to_whole(masks)

        def refine() -> np.ndarray:
            segmenter = load_segmenter(model=options.refine_masks.removeprefix("sam2_"), device=run.device)
            return refine_masks(clip.frames, rough, segmenter, run).masks

        network = find_installed(options.refine_masks).stamp() if run.memory else None
        made_from = {"frames": clip.frames, "rough": rough, "network": network, "device": run.device.partition(":")[0]}
        refined = run.remember("Refined masks", made_from, refine)
        masks = pictures.to_grid(refined)
        plates = enlarged(refined, clip.info.plate_size)
        if given is not None:
            masks |= given
            plates |= enlarged(clip.known_masks, clip.info.plate_size)
        return masks, plates
    if given is not None:
        masks |= given
    plates = plate_masks(pictures.to_whole(masks), clip.frames, clip.info.plate_size, run)
    if clip.known_masks is not None:  # as the user drew them, not as the grid blurred them
        known = enlarged(clip.known_masks, clip.info.plate_size)
        plates[:] = known if replaced else plates | known
    return masks, plates


def enlarged(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, H, W) bool at (width, height)."""
    if masks.shape[2:0:-1] == tuple(size):
        return np.array(masks)
    return np.stack([cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR_EXACT) > 0 for m in masks])
