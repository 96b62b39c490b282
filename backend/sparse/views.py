"""What a matching network says of two frames of a set, each as seen from either: the input of all that follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class View:
    """One frame's pixels in one camera's frame, float32 on the network's device.

    `points` (H, W, 3) metres, x right, y down, z forward; `confidence` (H, W) of the points, at least 1; `descriptors`
    (H, W, D) of unit length; `descriptor_confidence` (H, W), at least 0.
    """

    points: Tensor
    confidence: Tensor
    descriptors: Tensor
    descriptor_confidence: Tensor


@dataclass(frozen=True)
class SymmetricPair:
    """Frames i < j, decoded in both orders: `ab` is pixels of a in the camera of b.

    `ii` and `ji` come of one decoding, and so do `jj` and `ij`: only views of one decoding share its scale, and only
    their descriptors are made to be compared.
    """

    i: int
    j: int
    ii: View
    ji: View
    jj: View
    ij: View


class ViewSource(Protocol):
    """Whatever answers for pairs of a set's frames: the network, or a test's truth."""

    def predict(self, pairs: Iterable[tuple[int, int]]) -> Iterator[SymmetricPair]:
        """The answers to unordered pairs i < j, each once and in any order, streamed: keep what you need of one."""
        ...
