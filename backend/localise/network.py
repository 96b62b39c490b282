"""The MASt3R matcher: descriptors of a network matched both ways, and again in windows where plates are large.

Facts sheet mast3r.md, sections 2 and 4. Of the decoding (plate, view) the descriptors are compared; pixels of the view
without a point are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from ..device import choose_device
from ..matching.fast import Decodings
from ..matching.fine import Crop, match_fine
from ..matching.reciprocal import Described
from ..monst3r.models import precision_of
from ..nets.mast3r import MatchingNet, load_mast3r
from ..nets.pairwise import Encoded
from ..nets.precision import Precision
from ..nets.predict import FrameCache, network_input
from ..nets.weights import find_installed
from ..run import Run
from ..wire import LocaliseSettings
from .found import Found, Picture

log = logging.getLogger(__name__)

#: Crops whose tokens are kept: 2 to 4 MB each.
KEPT = 256


class Describer(Protocol):
    """What describes the pixels of two pictures, in sides that are multiples of 16, so that like ones can be found."""

    def describe(self, plate: Picture, view: Picture) -> tuple[Described, Described]: ...


class NetworkDescriber:
    """MASt3R's network as a describer; it is moved to the device and brought to the precision."""

    def __init__(self, network: MatchingNet, device: torch.device, precision: Precision) -> None:
        self.network = network.calculating(precision).to(device)
        self.device, self._tokens = device, FrameCache(KEPT)

    def describe(self, plate: Picture, view: Picture) -> tuple[Described, Described]:
        """Descriptors of both pictures from one decoding, on the device."""
        with torch.no_grad():
            views = self.network.pair(self._encoded(plate), self._encoded(view))
        return Described(views.desc_1[0], views.desc_conf_1[0]), Described(views.desc_2[0], views.desc_conf_2[0])

    def _encoded(self, picture: Picture) -> Encoded:
        tokens = self._tokens.get(picture.key)
        if tokens is None:
            tokens = self.network.encode(network_input(picture.rgb[None], self.device))
            self._tokens.put(picture.key, tokens.to(self.network.precision.tokens))
        return Encoded(tokens.float(), self.network.config.grid(*picture.rgb.shape[:2]))


class NetworkMatcher:
    """Matches by a describer; confidences below `least_confidence` are dropped.

    `made_from` says which describer it is.
    """

    name, label = "mast3r", "MASt3R"

    def __init__(
        self, describer: Describer, least_confidence: float, run: Run, made_from: Mapping[str, Any] | None = None
    ) -> None:
        self.describer, self.least_confidence, self.run = describer, least_confidence, run
        self.made_from = {"matcher": self.name, "least_confidence": least_confidence, **(made_from or {})}

    def match(self, plate: Picture, view: Picture, known: np.ndarray) -> Found:
        """Matches at the pictures' own resolution, between pixels that are each other's nearest."""
        found = match_fine(
            plate.rgb.shape[:2],
            view.rgb.shape[:2],
            partial(self._described, plate, view),
            masks=(None, ~known),
            least_confidence=self.least_confidence,
        )
        # They are counted from the centre of the first pixel.
        return Found(found.xy_1 + 0.5, found.xy_2 + 0.5, found.confidence)

    def _described(self, plate: Picture, view: Picture, pairs: Sequence[tuple[Crop, Crop]]) -> Iterator[Decodings]:
        for crops in pairs:
            self.run.check()
            yield [self.describer.describe(*map(_cut, (plate, view), crops))]


def _cut(picture: Picture, crop: Crop) -> Picture:
    return Picture((picture.key, crop.size, crop.plate_from_crop.tobytes()), crop.cut(picture.rgb))


def load_matcher(options: LocaliseSettings, run: Run) -> tuple[NetworkMatcher, tuple[dict, ...]]:
    """The matcher with the network's weights of this machine, and their stamp.

    Raises UserError when they are not there, or not right.
    """
    installed, device = find_installed("mast3r"), choose_device(run)
    log.info("%s on %s", installed.model.title, device)
    precision = precision_of(options, device)
    describer = NetworkDescriber(load_mast3r(installed), device, precision)
    made_from = {"weights": installed.stamp(), "precision": str(precision)}
    return NetworkMatcher(describer, options.match_confidence, run, made_from), (installed.stamp(),)
