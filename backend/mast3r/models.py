"""The network that the settings ask for, from the weights on this machine, as a source of views and of likeness."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..monst3r.models import precision_of
from ..nets.mast3r import load_mast3r
from ..nets.predict_views import ViewPredictor
from ..nets.weights import find_installed
from ..run import Run
from ..sparse.views import SymmetricPair
from ..wire import MASt3RSettings

log = logging.getLogger(__name__)


class LaterViews:
    """A `ViewSource`, and a `TokenSource` of the same frames, that is opened by its first question, or by `open`."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        self._opened = opened

    def predict(self, pairs: Iterable[tuple[int, int]]) -> Iterator[SymmetricPair]:
        return self.open().predict(pairs)

    def tokens(self, frames: Sequence[int]) -> Iterator[Tensor]:
        """Local features (M, D) of each of `frames`."""
        return self.open().tokens(frames)

    def open(self) -> Any:
        """The source, loaded now if it was not before."""
        return self._source

    def let_go(self) -> None:
        """Forget the source, whose memory is needed no more; a later question opens it anew."""
        self.__dict__.pop("_source", None)

    @cached_property
    def _source(self) -> Any:
        return self._opened()


def load_view_source(
    images: np.ndarray, options: MASt3RSettings, device: torch.device, run: Run
) -> tuple[LaterViews, tuple]:
    """The network for (T, H, W, 3) uint8 frames, with the stamps of its weights; loaded when it is first asked.

    Raises UserError when the weights are not on this machine, or, on loading, not right.
    """
    installed = find_installed("mast3r")

    def opened() -> ViewPredictor:
        log.info("%s on %s", installed.model.title, device)
        return ViewPredictor(
            load_mast3r(installed),
            images,
            device,
            precision_of(options, device),
            run,
            pairs_at_once=options.pairs_at_once,
        )

    return LaterViews(opened), (installed.stamp(),)
