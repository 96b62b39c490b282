"""Networks with reproducible random weights, and what the original MonST3R code answered with the same weights.

`fixtures/monst3r/net`: NAME.json holds a configuration, the `salt` of its weights, and shape and SHA-256 of every
tensor of the original's state dict. NAME__CASE.npz holds, for B pairs of pictures `img1_u8`, `img2_u8` (B, H, W, 3):
`enc1`, `enc2` encoder outputs, `dec1_k`, `dec2_k` entry k of either branch's feature list, and the answers `pts3d_1`,
`conf_1`, `pts3d_2`, `conf_2`; float32, calculated on a CPU.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.nets.mast3r import MatchingConfig, MatchingNet
from backend.nets.pairwise import PairwiseConfig, PairwiseNet, aliases

TINY_MATCHING = MatchingConfig(
    enc_embed_dim=32,
    enc_depth=2,
    enc_num_heads=2,
    dec_embed_dim=24,
    dec_depth=4,
    dec_num_heads=2,
    dpt_feature_dim=8,
    dpt_last_dim=8,
    dpt_layer_dims=(6, 8, 10, 12),
    descriptor_dim=6,
)
FIXTURES = Path(__file__).parent / "fixtures" / "monst3r" / "net"


def recipe_tensor(name: str, shape: Iterable[int], salt: int) -> Tensor:
    """The float32 weights that a state-dict name, a shape and a salt determine."""
    shape = tuple(shape)
    seed = (zlib.crc32(name.encode()) + salt) % 2**32
    values = np.random.RandomState(seed).standard_normal(shape)
    if name == "mask_token":
        values *= 0.02
    elif len(shape) >= 2:
        values /= np.sqrt(np.prod(shape[1:]))
        if name.endswith(".dpt.head.4.weight"):
            values *= 0.125
        if name in ("downstream_head1.proj.weight", "downstream_head2.proj.weight"):
            values *= 0.5
    else:
        values = 1 + 0.1 * values if "norm" in name and name.endswith("weight") else 0.05 * values
    return torch.from_numpy(values.astype(np.float32))


def recipe_state(config: PairwiseConfig, salt: int) -> dict[str, Tensor]:
    """The weights of a whole two-view network, under the names of `PairwiseNet`."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in PairwiseNet(config).state_dict().items()}
    return {name: recipe_tensor(name, shape, salt) for name, shape in shapes.items()}


def formula_state(shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    """The weights that the recorded full-size MASt3R network has: a hash of each element's place, no generator."""
    return {name: _formula_tensor(name, tuple(shapes[name]), o) for o, name in enumerate(sorted(shapes))}


def _formula_tensor(name: str, shape: tuple[int, ...], order: int) -> Tensor:
    if name == "mask_token":
        return torch.zeros(shape)
    fan = shape[0] if name.endswith(("act_postprocess.0.1.weight", "act_postprocess.1.1.weight")) else None
    if "norm" in name:
        gain, mean = (0.1, 1.0) if name.endswith("weight") else (0.05, 0.0)
    elif len(shape) == 1:
        gain, mean = 0.05, 0.0
    else:
        gain = (0.25 if name.endswith("head.4.weight") else 1.0) * np.sqrt(3 / (fan or math.prod(shape[1:])))
        mean = 0.0
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(values), 2**18):  # what stays in a processor's cache
        x = np.arange(start, min(start + 2**18, len(values)), dtype=np.uint32)
        x += np.uint32((order * 0x9E3779B9 + 11) % 2**32)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        x ^= x >> np.uint32(16)
        values[start : start + len(x)] = mean + (x / 2**31 - 1) * gain
    return torch.from_numpy(values).view(shape)


def matching_net(config: MatchingConfig | None = None, kind: type[MatchingNet] = MatchingNet) -> MatchingNet:
    """A matching network of a configuration, by default a tiny one, with weights by their formula; for inference."""
    config = config or TINY_MATCHING
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in kind(config).state_dict().items()}
    return kind.from_state(config, formula_state(shapes))


def agreeing_net() -> MatchingNet:
    """The tiny random network with the weights of its first decoder and head in the second ones too: of equal pictures
    it says the same twice. Biases of the last layer put points some 20 m before the camera, and make it sure of them.
    """
    state = matching_net().state_dict()
    state["downstream_head1.dpt.head.4.bias"] = state["downstream_head1.dpt.head.4.bias"] + torch.tensor([0, 0, 3.0, 2])
    second = {"dec_blocks2.": "dec_blocks.", "downstream_head2.": "downstream_head1."}
    for copy, first in second.items():
        for name in [name for name in state if name.startswith(copy)]:
            state[name] = state[name.replace(copy, first)].clone()
    return MatchingNet.from_state(TINY_MATCHING, state)


def published_names(config: PairwiseConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with its second names, as a .pth file has it."""
    return {**state, **{second: state[first] for second, first in aliases(config).items()}}


@functools.cache
def _described(name: str) -> tuple[dict, dict[str, Tensor]]:
    fields = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return fields, recipe_state(PairwiseConfig.from_fields(fields), fields["salt"])


def fixture_fields(name: str) -> dict:
    """What NAME.json says."""
    return _described(name)[0]


def fixture_state(name: str) -> dict[str, Tensor]:
    """The weights of a fixture's network."""
    return dict(_described(name)[1])


def fixture_net(name: str, kind: type[PairwiseNet] = PairwiseNet) -> PairwiseNet:
    """A fixture's network, or one of a class derived from it, with the fixture's weights."""
    return kind.from_state(PairwiseConfig.from_fields(fixture_fields(name)), fixture_state(name))


def fixture_case(name: str, case: str) -> dict[str, np.ndarray]:
    """What the original answered."""
    with np.load(FIXTURES / f"{name}__{case}.npz") as arrays:
        return dict(arrays)
