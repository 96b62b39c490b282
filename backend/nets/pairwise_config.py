"""What a checkpoint says of a two-view network: its sizes, and its tensors under one name each.

Facts sheet monst3r.md, sections 1 and 3.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..wire import UserError
from .dpt import DPTHead


@dataclass(frozen=True)
class PairwiseConfig:
    """Sizes of a two-view network; the defaults are those of the published MonST3R checkpoint."""

    #: Whose networks these are, their heads, and their output as a pattern.
    FAMILY: ClassVar[str] = "MonST3R or DUSt3R"
    HEADS: ClassVar[tuple[str, ...]] = ("dpt", "linear")
    OUTPUT: ClassVar[str] = "pts3d"

    img_size: tuple[int, int] = (512, 512)
    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    head: str = "dpt"
    dpt_feature_dim: int = 256
    dpt_last_dim: int = 128
    dpt_layer_dims: tuple[int, ...] = (96, 192, 384, 768)
    patch_size: int = 16
    mlp_ratio: int = 4
    rope_base: float = 100.0

    @property
    def hooks(self) -> tuple[int, ...]:
        """Which entries of a branch's feature list the head takes."""
        n = self.dec_depth
        return (n,) if self.head == "linear" else (0, n // 2, 3 * n // 4, n)

    @classmethod
    def from_json(cls, text: str) -> PairwiseConfig:
        """The configuration in a published config.json, whose bare Infinity the standard library reads."""
        return cls.from_fields(json.loads(text))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> PairwiseConfig:
        """The configuration in the arguments of a checkpoint, by their published names; absent ones take the default.

        Fields that do not touch inference (freeze, landscape_only, patch_embed_cls and the like) are passed over.
        Raises UserError where the arguments describe a network that this one is not.
        """
        head = fields.get("head_type", fields.get("head", cls.head))
        position = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", str(fields.get("pos_embed", "RoPE100")))
        depth, confidence = output_mode(fields, "depth_mode"), output_mode(fields, "conf_mode")
        output = fields.get("output_mode", "pts3d")
        known = (
            ("head type", head, head in cls.HEADS),
            ("position embedding", fields.get("pos_embed"), position is not None),
            ("output", output, re.fullmatch(cls.OUTPUT, str(output)) is not None),
            ("depth mode", fields.get("depth_mode"), depth in (None, ("exp", -math.inf, math.inf))),
            ("confidence mode", fields.get("conf_mode"), confidence in (None, ("exp", 1.0, math.inf))),
        )
        for name, value, supported in known:
            cls.require(supported, name, value)
        own = {each.name for each in dataclasses.fields(cls)} - {"head", "rope_base"}
        sizes = {name: fields[name] for name in own if name in fields}
        sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
        return cls(**sizes, head=head, rope_base=float(position[1]))

    @classmethod
    def require(cls, supported: bool, name: str, value: Any) -> None:
        """Raise UserError that names what the checkpoint has and these networks have not, unless it is supported."""
        if not supported:
            raise UserError(
                f"The checkpoint's {name} '{value}' is not one of {cls.FAMILY}", "choose another checkpoint"
            )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patches of a picture."""
        return height // self.patch_size, width // self.patch_size


def output_mode(fields: Mapping[str, Any], name: str) -> tuple[str, float, float] | None:
    """An output mode such as ["exp", 1, Infinity]; None if absent; with NaN, equal to nothing, if not of that form."""
    if name not in fields:
        return None
    try:
        kind, low, high = fields[name]
        return str(kind), float(low), float(high)
    except (TypeError, ValueError):
        return "", math.nan, math.nan


def aliases(config: PairwiseConfig) -> dict[str, str]:
    """Published names that a .pth has for tensors which stand under another name too: {second name: name}."""
    if config.head == "linear":
        return {}
    heads = ("downstream_head1.dpt.", "downstream_head2.dpt.")
    return {head + second: head + first for head in heads for second, first in DPTHead.ALIASES}


def published_state(config: PairwiseConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names of `PairwiseNet`: second names gone, an absent second decoder copied.

    A tensor that only has its second name takes the first. Where there is no `dec_blocks2`, both decoders start from
    the same tensors, as in checkpoints from before there were two.
    """
    state = dict(state)
    for second, first in aliases(config).items():
        if second in state:
            tensor = state.pop(second)
            state.setdefault(first, tensor)
    if not any(name.startswith("dec_blocks2.") for name in state):
        first_decoder = {name: tensor for name, tensor in state.items() if name.startswith("dec_blocks.")}
        state.update({"dec_blocks2." + name.removeprefix("dec_blocks."): t for name, t in first_decoder.items()})
    return state
