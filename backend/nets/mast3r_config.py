"""What a checkpoint says of the matching network: its sizes, and how it puts descriptors and their confidence.

Facts sheet mast3r.md, section 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from .pairwise_config import PairwiseConfig, output_mode


@dataclass(frozen=True)
class MatchingConfig(PairwiseConfig):
    """Sizes of a matching network; the defaults are those of the published MASt3R checkpoint.

    `descriptor_dim` numbers a pixel's descriptor has. With `two_confs` descriptors have a confidence of their own, of
    `desc_conf_range` (lowest, highest), an exponential between; without, it is that of the points.
    """

    FAMILY: ClassVar[str] = "MASt3R"
    HEADS: ClassVar[tuple[str, ...]] = ("catmlp+dpt",)
    OUTPUT: ClassVar[str] = r"pts3d\+desc([1-9]\d*)"

    head: str = "catmlp+dpt"
    descriptor_dim: int = 24
    two_confs: bool = True
    desc_conf_range: tuple[float, float] = (0.0, math.inf)

    @property
    def local_channels(self) -> int:
        """Numbers a pixel that the head makes beside points and their confidence."""
        return self.descriptor_dim + self.two_confs

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> MatchingConfig:
        """The configuration in the arguments of a checkpoint; what is absent is as the original constructor has it.

        Raises UserError where the arguments describe a network that this one is not.
        """
        sizes = super().from_fields(fields)
        cls.require(fields.get("desc_mode", "norm") == "norm", "descriptor mode", fields.get("desc_mode"))
        told = fields.get("desc_conf_mode") is not None
        kind, low, high = output_mode(fields, "desc_conf_mode") if told else ("exp", 1.0, math.inf)
        cls.require(kind == "exp" and low < high, "descriptor confidence mode", fields.get("desc_conf_mode"))
        dimension = re.fullmatch(cls.OUTPUT, fields["output_mode"])[1]
        return replace(
            sizes,
            descriptor_dim=int(dimension),
            two_confs=bool(fields.get("two_confs", False)),
            desc_conf_range=(low, high),
        )
