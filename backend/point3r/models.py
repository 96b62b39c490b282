"""The network that the settings ask for, from the weights on this machine, as a stream of frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch

from ..monst3r.models import precision_of
from ..nets.point3r import load_point3r
from ..nets.point3r_stream import Point3RStream
from ..nets.weights import find_installed
from ..streaming.frames import FrameStream, StreamedFrame
from ..streaming.fusion import OURS, FusionOptions
from ..wire import Point3RSettings

log = logging.getLogger(__name__)


class LaterStream:
    """A `FrameStream` that is opened by its first frame or state, or by `open`."""

    def __init__(self, opened: Callable[[], FrameStream]) -> None:
        self._opened = opened

    def push(self, rgb: np.ndarray) -> StreamedFrame:
        return self.open().push(rgb)

    def pointers(self) -> np.ndarray:
        return self.open().pointers()

    def save(self) -> Mapping[str, np.ndarray]:
        return self.open().save()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.open().restore(state)

    def reset(self) -> None:
        self.open().reset()

    def open(self) -> FrameStream:
        """The stream, loaded now if it was not before."""
        return self._stream

    def let_go(self) -> None:
        """Forget the stream, whose memory is needed no more; a later frame opens it anew, at its beginning."""
        self.__dict__.pop("_stream", None)

    @cached_property
    def _stream(self) -> FrameStream:
        return self._opened()


def load_stream(options: Point3RSettings, device: torch.device) -> tuple[LaterStream, tuple]:
    """The network as a stream, with the stamps of its weights; loaded when it is first asked.

    Raises UserError when the weights are not on this machine, or, on loading, not right.
    """
    installed = find_installed("point3r")

    def opened() -> Point3RStream:
        log.info("%s on %s", installed.model.title, device)
        network = load_point3r(installed)
        return Point3RStream(network, fusion_of(options), precision_of(options, device), device)

    return LaterStream(opened), (installed.stamp(),)


def fusion_of(options: Point3RSettings) -> FusionOptions:
    """How the settings want the memory to be kept."""
    return FusionOptions(
        tail=OURS.tail if options.ignore_far else 0.0,
        doubtful=options.skip_doubtful,
        weighted=options.weigh_memory,
        life=max(2, options.forget_after) if options.forget_after else 0,
        most_read=options.most_read,
    )
