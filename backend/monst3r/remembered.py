"""What a network says of pairs, kept from job to job: it is loaded only for what nobody asked it before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from ..align.predictions import PairFlows, PairPredictions, Pairs
from ..run import Run
from ..wire import MonST3RSettings
from .models import FlowSource, Later, PairSource, precision_of

SomePairs = TypeVar("SomePairs", bound=Pairs)
#: Bytes a pixel of a pair's predictions, and of its flow.
PAIR_BYTES, FLOW_BYTES = 16, 5


def remembered(
    network: PairSource,
    stamps: tuple,
    flow: FlowSource | None,
    flow_stamps: tuple,
    pictures: np.ndarray,
    pairs: int,
    options: MonST3RSettings,
    device: torch.device,
    run: Run,
) -> tuple[Remembered[PairPredictions], Remembered[PairFlows] | None]:
    """The same sources, whose answers later jobs with other masks or another alignment need not ask for again."""
    pixels = pairs * pictures.shape[1] * pictures.shape[2]
    seen = {"frames": run.content(pictures), "device": device.type}
    by_network = {**seen, "network": stamps, "precision": str(precision_of(options, device))}
    found = Remembered("Pairs", PairPredictions, network, by_network, PAIR_BYTES * pixels, run)
    if flow is None:
        return found, None
    by_flow = {**seen, "network": flow_stamps, "flow": options.flow, "updates": options.flow_updates}
    return found, Remembered("Pair flow", PairFlows, flow, by_flow, FLOW_BYTES * pixels, run)


class Remembered(Generic[SomePairs]):
    """A source of pairs of one `kind` that earlier jobs may have asked the same.

    `made_from` is all that its answers depend on, besides the edges. Where all of them, `all_bytes`, would drive each
    other out of the memory, none is kept.
    """

    def __init__(
        self, what: str, kind: type[SomePairs], source: Any, made_from: Mapping[str, Any], all_bytes: int, run: Run
    ) -> None:
        self.what, self.kind, self.source, self.made_from, self.run = what, kind, source, made_from, run
        self.kept = run.memory is not None and all_bytes <= run.memory.limit_bytes // 2

    def predict(self, edges: Any) -> SomePairs:
        """The source's answer to directed pairs (E, 2) of frames, or what it answered an earlier job."""
        if not self.kept:
            return self.source.predict(edges)

        def ask() -> dict[str, Any]:
            found = self.source.predict(edges)
            return {f.name: getattr(found, f.name).cpu().numpy() for f in fields(found)}

        arrays = self.run.remember(self.what, self._key(edges), ask)
        return self.kind(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def knows(self, edges: Any) -> bool:
        """Whether an earlier job, or a helper, had the answer."""
        return self.kept and self.run.memory.knows(self.what, self._key(edges))

    def prepare(self, questions: Iterable[Any]) -> None:
        """Load the source now, unless the answers to all these lists of edges are known."""
        unknown = not self.kept or any(not self.run.memory.knows(self.what, self._key(edges)) for edges in questions)
        if unknown and isinstance(self.source, Later):
            self.source.open()

    def let_go(self) -> None:
        """Forget the source, whose memory is needed no more."""
        self.source = None

    def _key(self, edges: Any) -> dict[str, Any]:
        return {**self.made_from, "edges": torch.as_tensor(edges).numpy()}
