"""Streaming networks with weights by a formula, and files of them as Point3R is published."""

from __future__ import annotations

import json
import math
import re
import sys
import types
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from backend.nets.checkpoint import tied_names
from backend.nets.point3r import Point3RConfig, Point3RNet

#: As small as heads of odd thirds allow: 16 channels are 5, 5 and 6.
TINY_STREAM = Point3RConfig(
    enc_embed_dim=32,
    enc_depth=2,
    enc_num_heads=2,
    dec_embed_dim=32,
    dec_depth=4,
    dec_num_heads=2,
    memory_dec_num_heads=4,
    value_depth=2,
    value_num_heads=2,
    local_mem_size=4,
    dpt_feature_dim=8,
    dpt_last_dim=4,
    dpt_layer_dims=(6, 8, 10, 12),
)
#: Of the last layers, so that a random scene is a few metres large.
GAINS = (("(dpt_self|dpt_cross)\\.head\\.4\\.weight", 0.2), ("pose_head\\.mlp\\.fc2\\.weight", 0.5))
CONSTRUCTOR = (
    "Point3R(Point3RConfig(freeze='encoder', pos_embed='RoPE100', pos_embed_3d='RoPE3D100', pose_head=True, "
    "patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), head_type='{head}', output_mode='pts3d+pose', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), landscape_only=False, "
    "{sizes}))"
)


def hashed_state(
    shapes: Mapping[str, Iterable[int]], salt: str, gains: Iterable[tuple[str, float]]
) -> dict[str, Tensor]:
    """The float32 weights that names, shapes and a salt determine, as the recorded full-size network has them."""
    gains = list(gains)
    return {name: _hashed_tensor(name, tuple(shape), salt, gains) for name, shape in shapes.items()}


def _hashed_tensor(name: str, shape: tuple[int, ...], salt: str, gains: list[tuple[str, float]]) -> Tensor:
    one_name = re.sub(r"scratch\.layer(\d)_rn\.", lambda found: f"scratch.layer_rn.{int(found[1]) - 1}.", name)
    seed = np.uint32(zlib.crc32((salt + one_name).encode()))
    mean, scale = 0.0, 1.0
    if name in ("pose_token", "pose_retriever.masked_token", "pose_retriever.mem"):
        scale = 0.5
    elif name.endswith(".bias"):
        scale = 0.1
    elif len(shape) == 1:
        mean, scale = 1.0, 0.1
    else:
        gain = next((gain for pattern, gain in gains if re.search(pattern, name)), 1.0)
        scale = gain * math.sqrt(3 / math.prod(shape[1:]))
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(values), 2**18):  # what stays in a processor's cache
        x = np.arange(start, min(start + 2**18, len(values)), dtype=np.uint32)
        x += seed
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
        x >>= np.uint32(8)
        values[start : start + len(x)] = mean + scale * (x / 2**23 - 1)
    return torch.from_numpy(values).view(shape)


def shapes_of(config: Point3RConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a network, by its one name."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Point3RNet(config).state_dict().items()}


def point3r_net(config: Point3RConfig = TINY_STREAM, salt: str = "", kind: type[Point3RNet] = Point3RNet) -> Point3RNet:
    """A network of a configuration, by default a tiny one, with weights by their formula; for inference."""
    return kind.from_state(config, hashed_state(shapes_of(config), salt, GAINS))


def published_point3r(folder: Path, form: str, net: Point3RNet) -> Path:
    """A network as it is published, "pth": second names, `module.` before all, arguments of OmegaConf beside them.

    Or "safetensors", with one name a tensor, beside a config.json. Beyond the published arguments it says its sizes.
    """
    own = [each.name for each in fields(net.config) if each.name not in ("head", "img_size", "rope_base")]
    sizes = {name: getattr(net.config, name) for name in own}
    state = net.state_dict()
    if form == "safetensors":
        said = {"pos_embed": "RoPE100", "head_type": net.config.head, "output_mode": "pts3d+pose", **sizes}
        (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
        second = {alias: name for alias, name in tied_names(state).items() if alias not in state}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt", **second})
        return folder / "model.safetensors"
    text = CONSTRUCTOR.format(
        head=net.config.head, sizes=", ".join(f"{name}={value!r}" for name, value in sizes.items())
    )
    state |= {alias: state[name] for alias, name in tied_names(state).items() if alias not in state}
    with omegaconf_node(text) as arguments:
        content = {"model": {f"module.{name}": each for name, each in state.items()}, "args": arguments, "epoch": 10}
        torch.save(content, folder / "point3r_512.pth")
    return folder / "point3r_512.pth"


@contextmanager
def omegaconf_node(model: str) -> Iterator[Any]:
    """Training arguments whose `model` is a text, as OmegaConf pickles them; its package is there only meanwhile."""
    module, package = types.ModuleType("omegaconf.dictconfig"), types.ModuleType("omegaconf")
    module.DictConfig, module.AnyNode = (
        type(n, (), {"__module__": module.__name__}) for n in ("DictConfig", "AnyNode")
    )
    package.dictconfig = module
    node, arguments = module.AnyNode(), module.DictConfig()
    node._val, arguments._content = model, {"model": node}
    before = {name: sys.modules.get(name) for name in ("omegaconf", "omegaconf.dictconfig")}
    sys.modules.update({"omegaconf": package, "omegaconf.dictconfig": module})
    try:
        yield arguments
    finally:
        for name, was in before.items():
            if was is None:
                del sys.modules[name]
            else:
                sys.modules[name] = was
