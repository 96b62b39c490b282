"""Which pairs of frames are compared: by a scene graph of numbers, or by which frames look alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..align.graph import Pair
from ..run import Run
from ..sparse.graph import set_pairs
from ..sparse.retrieval import token_likeness
from ..wire import MASt3RSettings
from .choices import graph_kind


class TokenSource(Protocol):
    """What knows local features of frames."""

    def tokens(self, frames: Sequence[int]) -> Iterator[Tensor]:
        """Features (M, D) of each of `frames`."""
        ...


def choose_pairs(
    source: TokenSource,
    keys: np.ndarray,
    sequence: bool,
    options: MASt3RSettings,
    made_from: dict[str, Any],
    run: Run,
) -> list[Pair]:
    """Unordered pairs i < j of the frames `keys` (K,), as indices into them, sorted.

    The source is asked only where likeness decides, and not for what `run` remembers of the same `made_from`.
    """
    kind = graph_kind(options, len(keys), sequence)
    if kind in ("swin", "logwin"):
        kind += f"-{options.neighbours}" + ("" if options.cyclic else "-noncyclic")
    likeness = None
    if kind == "retrieval":
        kind += f"-{options.key_images}-{options.neighbours + 1}"  # a frame counts as one of its own nearest
        likeness = run.remember("Likeness", made_from, lambda: token_likeness(list(source.tokens(keys.tolist()))))
    return set_pairs(kind, len(keys), likeness=likeness, seed=run.seed)
