"""The MASt3R matcher: pixels of the capture that have a point look for their like in the plate, and back.

Facts sheet mast3r.md, section 4. Each picture is encoded once; of the one decoding (plate, view) the descriptors are
compared. Large plates are matched again in windows at their full resolution.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..device import choose_device
from ..matching.fast import match_seeds
from ..matching.reciprocal import Described
from ..monst3r.models import precision_of
from ..monst3r.preprocess import Grid, grid_for, on_grid
from ..nets.mast3r import MatchingNet, load_mast3r
from ..nets.pairwise import Encoded
from ..nets.precision import Precision
from ..nets.predict import FrameCache, network_input
from ..nets.weights import find_installed
from ..run import Run
from ..wire import LocaliseSettings
from .found import Found, Picture

log = logging.getLogger(__name__)

#: Long side of what the network sees at a time.
LONG_SIDE = 512
#: Seeds of a pair of pictures, about; they are laid evenly.
SEEDS = 6000
#: How near to a seed the way back must end, in pixels of the network's grid.
TOLERANCE_PX = 5.0
#: Pictures whose tokens are kept: 2 to 4 MB each.
KEPT = 256


class Describer(Protocol):
    """What describes the pixels of two pictures, of sides that are multiples of 16, so that like ones can be found."""

    def describe(self, plate: Picture, view: Picture) -> tuple[Described, Described]: ...


class NetworkDescriber:
    """MASt3R's network as a describer; it is moved to the device and brought to the precision."""

    def __init__(self, network: MatchingNet, device: torch.device, precision: Precision) -> None:
        self.network = network.calculating(precision).to(device)
        self.device, self._tokens = device, FrameCache(KEPT)

    def describe(self, plate: Picture, view: Picture) -> tuple[Described, Described]:
        """Descriptors of both pictures from one decoding, on the device."""
        with torch.inference_mode():
            views = self.network.pair(self._encoded(plate), self._encoded(view))
        return Described(views.desc_1[0], views.desc_conf_1[0]), Described(views.desc_2[0], views.desc_conf_2[0])

    def _encoded(self, picture: Picture) -> Encoded:
        tokens = self._tokens.get(picture.key)
        if tokens is None:
            tokens = self.network.encode(network_input(picture.rgb[None], self.device))
            self._tokens.put(picture.key, tokens.to(self.network.precision.tokens))
        return Encoded(tokens.float(), self.network.config.grid(*picture.rgb.shape[:2]))


class NetworkMatcher:
    """Matches by a describer; confidences below `least_confidence` are dropped."""

    name, label = "mast3r", "MASt3R"

    def __init__(self, describer: Describer, least_confidence: float) -> None:
        self.describer, self.least_confidence = describer, least_confidence

    def match(self, plate: Picture, view: Picture, known: np.ndarray) -> Found:
        """Matches of seeds that lie evenly in the view, where it has points."""
        one, two = seen(plate), seen(view)
        return self._matched(one, two, known)

    def _matched(self, plate: Seen, view: Seen, known: np.ndarray) -> Found:
        described_plate, described_view = self.describer.describe(plate.picture, view.picture)
        seeds = seeds_on(view, known)
        if not len(seeds):
            return Found(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, np.float32))
        there = torch.from_numpy(seeds).to(described_view.descriptors.device)
        matches = match_seeds(described_view, described_plate, there, TOLERANCE_PX).to("cpu")
        matches = matches.where(matches.confidence >= self.least_confidence)
        return Found(
            plate_xy=plate.grid.plate_map.to_plate(matches.xy_2.numpy() + 0.5),
            map_xy=view.grid.plate_map.to_plate(matches.xy_1.numpy() + 0.5),
            confidence=matches.confidence.numpy(),
        )


@dataclass(frozen=True)
class Seen:
    """A picture as the network sees it: `picture` on `grid`."""

    picture: Picture
    grid: Grid


def seen(picture: Picture) -> Seen:
    """A whole picture on the network's grid."""
    grid = grid_for(picture.size, LONG_SIDE)
    return Seen(Picture((picture.key, "seen"), on_grid(picture.rgb, grid)), grid)


def seeds_on(view: Seen, known: np.ndarray) -> np.ndarray:
    """(K, 2) int64 pixels (x, y) of the network's grid that lie evenly where `known` (H, W) of the picture is true."""
    width, height = view.grid.size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    at = np.floor(view.grid.plate_map.to_plate(np.stack([x, y], axis=-1) + 0.5)).astype(int)
    here = known[at[..., 1].clip(0, known.shape[0] - 1), at[..., 0].clip(0, known.shape[1] - 1)]
    step = max(1, int(np.sqrt(here.sum() / SEEDS)))
    here = here & ((x - step // 2) % step == 0) & ((y - step // 2) % step == 0)
    return np.column_stack([x[here], y[here]]).astype(np.int64)


def load_matcher(options: LocaliseSettings, run: Run) -> tuple[NetworkMatcher, tuple[dict, ...]]:
    """The matcher with the network's weights of this machine, and their stamp.

    Raises UserError when they are not there, or not right.
    """
    installed, device = find_installed("mast3r"), choose_device(run)
    log.info("%s on %s", installed.model.title, device)
    describer = NetworkDescriber(load_mast3r(installed), device, precision_of(options, device))
    return NetworkMatcher(describer, options.match_confidence), (installed.stamp(),)
