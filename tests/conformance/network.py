"""Conformance of the two-view network: weights by their recipe, and every array that a forward pass leaves."""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from backend.nets.pairwise import Encoded, PairwiseConfig, PairwiseNet, aliases
from backend.nets.predict import network_input
from backend.nets.vit import grid_positions
from tests.recipe import published_names, recipe_state

from .rows import Arrays, Row, absent, count, guarded, near

SMALL, FULL_SIZE = 2e-5, 2e-4
#: Float32 noise is a floor: so many times what was recorded of it, and this share of the array's largest element.
NOISE, ROUNDING = 4, 2e-6


def check(folder: Path) -> Iterator[Row]:
    """Every `net/NAME.json` with its `NAME.safetensors`, `NAME__CASE.npz` or `NAME.npz`."""
    configs = sorted((folder / "net").glob("*.json"))
    if not configs:
        yield absent("network")
    for path in configs:
        yield from guarded(path.stem, partial(_network, path))
        gc.collect()  # a full-size network is 2.3 GB


def _network(path: Path) -> Iterator[Row]:
    fields = json.loads(path.read_text(encoding="utf-8"))
    config, name = PairwiseConfig.from_fields(fields), path.stem
    if "hooks" in fields:
        yield near(f"{name} hooks", config.hooks, fields["hooks"], 0)
    if "tied_keys" in fields:
        differing = set(aliases(config)) ^ set(fields["tied_keys"])
        yield Row(f"{name} tied keys", not differing, len(differing), 0, ", ".join(sorted(differing)[:3]))
    hashes = fields.get("sha256") or {key: entry["sha256"] for key, entry in fields.get("tensors", {}).items()}
    state = None
    if "salt" in fields:
        state = recipe_state(config, fields["salt"])
        yield from _weights(f"{name} recipe", fields, hashes, published_names(config, state))
    stored = path.with_suffix(".safetensors")
    if stored.is_file():
        state = load_file(stored)
        yield from _weights(f"{name} safetensors", fields, hashes, state)
    if state is None:
        yield absent(f"{name} weights")
        return
    net = PairwiseNet.from_state(config, state)
    del state
    cases = sorted([*path.parent.glob(f"{name}__*.npz"), *path.parent.glob(f"{name}.npz")])
    for case in fields.get("cases", {}):
        if not (path.parent / f"{name}__{case}.npz").is_file():
            yield absent(f"{name}__{case}")
    if not cases and "cases" not in fields:
        yield absent(f"{name} cases")
    for case_path in cases:
        noise = fields.get("float32_noise", {}).get(case_path.stem.removeprefix(f"{name}__"), {})
        yield from guarded(case_path.stem, partial(_case, net, case_path, noise))


def _weights(name: str, fields: Mapping, hashes: Mapping[str, str], state: Mapping[str, Tensor]) -> Iterator[Row]:
    if "n_keys" in fields:
        yield near(f"{name} keys", len(state), fields["n_keys"], 0)
    if "tensors" in fields:
        shapes = {key: list(tensor.shape) for key, tensor in state.items()}
        theirs = {key: entry["shape"] for key, entry in fields["tensors"].items()}
        wrong = [key for key in shapes.keys() | theirs.keys() if shapes.get(key) != theirs.get(key)]
        yield count(f"{name} shapes", sorted(wrong), len(theirs), of="tensors")
    if not hashes:
        yield absent(f"{name} sha256")
        return
    wrong = [key for key, value in hashes.items() if key not in state or _sha256(state[key]) != value]
    yield count(f"{name} sha256", wrong, len(hashes), of="tensors")


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().float().numpy().tobytes()).hexdigest()


def _case(net: PairwiseNet, path: Path, noise: Mapping[str, Any]) -> Iterator[Row]:
    arrays = Arrays(path)
    ours = forward_arrays(net, arrays["img1_u8"], arrays["img2_u8"])
    for name in arrays:
        if name.startswith("img"):
            continue
        mine = ours.get(name)
        if mine is None:
            yield Row(f"{path.stem} {name}", False, note="the network has nothing of this name")
            continue
        exact = name.startswith("pos")
        full_size = name.endswith("_sub") or name.startswith("stats")
        largest = float(np.abs(arrays[name]).max(initial=0))
        floor = max(NOISE * noise.get(name, {}).get("max_abs_f32_vs_f64", 0.0), ROUNDING * largest)
        yield arrays.near(name, mine, 0.0 if exact else max(FULL_SIZE if full_size else SMALL, floor))


@torch.inference_mode()
def forward_arrays(net: PairwiseNet, img1_u8: np.ndarray, img2_u8: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that a recorded case may hold, by its name; the subsamples too."""
    size = net.config.patch_size
    views = []
    for pictures in (img1_u8, img2_u8):
        grid = (pictures.shape[1] // size, pictures.shape[2] // size)
        views.append(Encoded(net.encode(network_input(pictures)), grid))
    ours: dict[str, Tensor] = {}
    for v, (view, features) in enumerate(zip(views, net.decode(*views, keep=range(net.config.dec_depth + 1))), 1):
        ours[f"enc{v}"] = view.tokens
        ours[f"pos{v}"] = grid_positions(view.grid).expand(len(view.tokens), -1, -1)
        ours.update({f"dec{v}_{k}": feature for k, feature in features.items()})
    maps = net.pair(*views)
    for v in (1, 2):
        points, confidence = getattr(maps, f"pts3d_{v}"), getattr(maps, f"conf_{v}")
        ours[f"pts3d_{v}"], ours[f"conf_{v}"] = points, confidence
        pieces = (points.double(), confidence.double())
        ours[f"stats_{v}"] = torch.stack([f for p in pieces for f in (p.mean(), p.std())])
    for name in list(ours):
        if re.match(r"(enc|dec)\d", name):
            ours[f"{name}_sub"] = ours[name][:, ::7, ::16]
        elif re.match(r"(pts3d|conf)_", name):
            ours[f"{name}_sub"] = ours[name][:, ::8, ::8]
    return {name: tensor.numpy() for name, tensor in ours.items()}
