"""What a checkpoint says of the streaming network of Point3R: its sizes, and which networks are not one.

Facts sheet of Point3R, sections 3.1 and 8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .pairwise_config import PairwiseConfig, output_mode


@dataclass(frozen=True)
class Point3RConfig(PairwiseConfig):
    """Sizes of a streaming network; the defaults are those of the published Point3R checkpoint.

    `memory_dec_num_heads` and `value_num_heads` leave no trace in the shapes of tensors: the first are the heads of the
    pointers' decoder, the second those of the encoder of points, which is as wide as that of pictures and `value_depth`
    deep. `local_mem_size` slots are the pose memory.
    """

    FAMILY: ClassVar[str] = "Point3R"
    OUTPUT: ClassVar[str] = r"pts3d\+pose"

    memory_dec_num_heads: int = 16
    value_depth: int = 6
    value_num_heads: int = 16
    local_mem_size: int = 256

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Point3RConfig:
        """The configuration in the arguments of a checkpoint, by their published names; absent ones take the default.

        Raises UserError where the arguments describe a network that this one is not.
        """
        space, pose = fields.get("pos_embed_3d", "RoPE3D"), output_mode(fields, "pose_mode")
        cls.require(re.fullmatch(r"RoPE3D\d*", str(space)) is not None, "position embedding in space", space)
        cls.require(pose in (None, ("exp", -math.inf, math.inf)), "pose mode", fields.get("pose_mode"))
        cls.require(bool(fields.get("pose_head", True)), "pose head", fields.get("pose_head"))
        return super().from_fields(fields)
