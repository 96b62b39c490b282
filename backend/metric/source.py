"""The network that sees in metres, from the weights on this machine, for the pictures of one measurement."""

from __future__ import annotations

import numpy as np

from ..device import choose_device
from ..nets.mast3r import load_mast3r
from ..nets.precision import precision_for
from ..nets.predict_views import ViewPredictor
from ..nets.weights import find_installed
from ..run import Run
from .cost import WEIGHTS
from .scale import OpenSource


def matching_network(run: Run) -> OpenSource:
    """What opens MASt3R on the run's device. Raises UserError when its weights or the device are not there."""
    installed = find_installed(WEIGHTS)
    device = choose_device(run)

    def open_source(pictures: np.ndarray) -> tuple[ViewPredictor, tuple[dict, ...]]:
        network = load_mast3r(installed)
        return ViewPredictor(network, pictures, device, precision_for(device), run), (installed.stamp(),)

    return open_source
