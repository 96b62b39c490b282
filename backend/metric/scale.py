"""The scale of a capture from several pairs of its frames: their median and their spread, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import t as students_t

from ..run import Run
from ..sparse.views import ViewSource
from ..wire import Capture, MetricScale, UserError
from .compare import PairScale, compare, known_frame
from .cost import FRAMES, LONG_SIDE
from .frames import LEAST_PARALLAX, choose_pairs

#: A pair whose pixels' logarithms are further apart than this does not see the capture's shapes.
PIXEL_SPREAD = 0.35
#: Fewest pairs that give a scale, the share of all that must agree, and how far apart they may be (standard deviation).
LEAST_PAIRS, LEAST_SHARE, MOST_SPREAD = 3, 0.6, 0.25
#: Pairs agree within so many standard deviations, but at least within this share and at most within 2 MOST_SPREAD.
AGREE_SIGMAS, AGREE = 3.0, 0.1
#: How far the scale by the camera's path may be from that by depth.
MOST_DISCORD = math.log(1.4)

#: Opens what answers for pairs of pictures (F, H, W, 3) uint8; the stamps of its weights.
OpenSource = Callable[[np.ndarray], tuple[ViewSource, tuple[dict, ...]]]


def measure_scale(
    capture: Capture, open_source: OpenSource, run: Run, frames: int = FRAMES, long_side: int = LONG_SIDE
) -> MetricScale:
    """How many metres the capture's unit is, by what a network that sees in metres says of `frames` of its frames.

    Movers are left out by the capture's masks, and so is depth that was filled in. Raises UserError when the capture
    is metric, when its frames do not overlap, and when too few pairs agree with it or with each other.
    """
    check_wanted(capture)
    choice = choose_pairs(capture, frames)
    known = [known_frame(capture, int(t), long_side) for t in choice.frames]
    run.check()
    source, stamps = open_source(np.stack([k.rgb for k in known]))
    pairs = [(int(i), int(j)) for i, j in choice.pairs]
    said = {(p.i, p.j): compare(p, known[p.i], known[p.j]) for p in source.predict(pairs)}
    answers = [said[pair] for pair in pairs]
    return agreed(answers, choice.parallax_deg, len(choice.frames), stamps)


def check_wanted(capture: Capture) -> None:
    """Raise UserError for a capture that is metric already."""
    if capture.metric:
        raise UserError("The capture is metric: its unit is the metre already", "use it as it is")


def agreed(
    answers: list[PairScale], parallax_deg: np.ndarray, frame_count: int, stamps: tuple[dict, ...]
) -> MetricScale:
    """The scale that most pairs agree on. Raises UserError when there is none; see `measure_scale`."""
    depth = np.array([a.by_depth for a in answers])
    fits = np.isfinite(depth) & (np.array([a.pixel_spread for a in answers]) <= PIXEL_SPREAD)
    needed = max(LEAST_PAIRS, math.ceil(LEAST_SHARE * len(answers)))
    if fits.sum() < needed:
        raise UserError(
            f"Only {fits.sum()} of {len(answers)} pairs of frames see the capture's shapes; {needed} are needed",
            "measure a distance in Blender instead, or make a better capture",
        )
    middle = float(np.median(depth[fits]))
    sigma = 1.4826 * float(np.median(np.abs(depth[fits] - middle)))
    reach = min(max(AGREE, AGREE_SIGMAS * sigma), 2 * MOST_SPREAD)
    agree = fits & (np.abs(depth - middle) <= reach)
    count = int(agree.sum())
    spread = float(np.sqrt(((depth[agree] - middle) ** 2).sum() / max(count - 1, 1)))
    if count < needed or spread > MOST_SPREAD:
        raise UserError(
            f"The pairs of frames disagree about the scale: {count} of {len(answers)} are near the middle one, "
            f"and those {spread:.0%} apart",
            "measure a distance in Blender instead",
        )
    _check_path(answers, agree & (parallax_deg >= LEAST_PARALLAX), middle)
    # Pairs that share frames do not err by themselves, so they count as many as there are separate ones.
    separate = max(2, min(count, frame_count // 2))
    half = float(students_t.ppf(0.975, separate - 1)) * spread / math.sqrt(separate)
    low, found, high = (math.exp(v) for v in (middle - half, middle, middle + half))
    return MetricScale(found, low, high, spread, count, "mast3r", stamps)


def _check_path(answers: list[PairScale], usable: np.ndarray, by_depth: float) -> None:
    """Raise UserError when pairs with parallax say by the camera's path what those by depth do not."""
    paths = np.array([a.by_path for a in answers])[usable]
    paths = paths[np.isfinite(paths)]
    if len(paths) >= LEAST_PAIRS and abs(float(np.median(paths)) - by_depth) > MOST_DISCORD:
        raise UserError(
            f"By its depth the unit is {math.exp(by_depth):.3g} m, by the camera's path "
            f"{math.exp(float(np.median(paths))):.3g} m: depth and path of the capture do not fit",
            "make a better capture, or measure a distance in Blender",
        )
