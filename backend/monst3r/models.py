"""The networks that the settings ask for, from the weights on this machine, as predictors of pairs and of flow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from ..align.predictions import PairFlows, PairPredictions
from ..nets.checkpoint import read_checkpoint, with_second_decoder
from ..nets.flow import ClassicalFlow
from ..nets.pairwise import PairwiseNet
from ..nets.precision import EXACT, FAST, FASTEST, Precision, precision_for
from ..nets.predict import PairPredictor
from ..nets.raft import RaftFlow, load_flow
from ..nets.receipt import Installed
from ..nets.weights import find_installed
from ..run import Run
from ..wire import MonST3RSettings

log = logging.getLogger(__name__)
PRECISIONS = {"exact": EXACT, "fast": FAST, "fastest": FASTEST, "compiled": replace(FAST, compiled=True)}


class PairSource(Protocol):
    """What says where the pixels of two frames are."""

    def predict(self, edges: Any) -> PairPredictions:
        """Predictions of directed pairs (E, 2) of frames, in their order."""
        ...


class FlowSource(Protocol):
    """What says where the pixels of one frame went in another."""

    def predict(self, edges: Any) -> PairFlows:
        """Flows of directed pairs (E, 2) of frames, in their order."""
        ...


class Later:
    """A source of pairs that is opened by its first question, or by `open`."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        self._opened = opened

    def predict(self, edges: Any) -> Any:
        """What the source says."""
        return self.open().predict(edges)

    def open(self) -> Any:
        """The source, loaded now if it was not before."""
        return self._source

    @cached_property
    def _source(self) -> Any:
        return self._opened()


def load_pair_source(
    images: np.ndarray, options: MonST3RSettings, device: torch.device, run: Run, total_pairs: int
) -> tuple[PairSource, tuple]:
    """The network that the settings name for (T, H, W, 3) uint8 frames, with the stamps of its weights.

    It is loaded when it is first asked, or opened. Raises UserError when the weights are not on this machine, or, on
    loading, not right.
    """
    installed = find_installed(options.model)

    def opened() -> PairPredictor:
        log.info("%s on %s", installed.model.title, device)
        network, precision = load_pairwise(installed), precision_of(options, device)
        return PairPredictor(network, images, device, precision, run, total_pairs, options.pairs_at_once)

    return Later(opened), (installed.stamp(),)


def load_pairwise(installed: Installed) -> PairwiseNet:
    """The two-view network of an installed checkpoint."""
    checkpoint = read_checkpoint(installed.checkpoint, installed.model.title)
    return PairwiseNet.from_checkpoint(replace(checkpoint, tensors=with_second_decoder(checkpoint.tensors)))


def precision_of(options: MonST3RSettings, device: torch.device) -> Precision:
    """How exactly the network calculates on the device."""
    return PRECISIONS.get(options.precision) or precision_for(device)


def load_flow_source(images: np.ndarray, options: MonST3RSettings, run: Run) -> tuple[FlowSource | None, tuple]:
    """The flow that the settings name, with the stamps of its weights; None for none."""
    if options.flow == "none":
        return None, ()
    if options.flow == "classical":
        return ClassicalFlow(images, run), ()
    installed = find_installed(options.flow)

    def opened() -> RaftFlow:
        model = load_flow(installed.checkpoint, options.flow.removeprefix("raft_"), run.device)
        half = torch.float16 if torch.device(run.device).type == "cuda" else torch.float32
        return RaftFlow(images, model, run, updates=options.flow_updates, precision=half)

    return Later(opened), (installed.stamp(),)
