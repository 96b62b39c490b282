"""Conformance of the matching network: pictures as it takes them, names, every layer, and what the heads make of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.monst3r.preprocess import grid_for, prepare
from backend.nets.mast3r import MatchingConfig, MatchingNet, MatchingViews, descriptors
from backend.nets.pairwise import Encoded, aliases, pointmap
from backend.nets.predict import network_input
from backend.nets.vit import grid_positions
from tests.recipe import formula_state

from .rows import Arrays, Row, absent, count, near

SMALL, FULL_SIZE, LOADED = 2e-4, 1e-3, 1e-6
STORED = ("img1", "img2", "true_shape1", "true_shape2")
MAPS = ("pts3d", "conf", "desc", "desc_conf")
#: The three recorded ways of making descriptors of the same raw channels: (dimension, two confidences, range).
POST = {
    "a": {"descriptor_dim": 6, "two_confs": True, "desc_conf_range": (0.0, np.inf)},
    "b": {"descriptor_dim": 7, "two_confs": False},
    "c": {"descriptor_dim": 6, "two_confs": True, "desc_conf_range": (1.0, np.inf)},
}


def by_largest(name: str, ours: np.ndarray | Tensor, theirs: np.ndarray, tolerance: float) -> Row:
    """Largest difference as a share of the largest recorded element."""
    largest = float(np.abs(theirs).max(initial=0)) or 1.0
    return near(name, np.asarray(ours, np.float64) / largest, np.asarray(theirs, np.float64) / largest, tolerance)


def check_loading(folder: Path) -> Iterator[Row]:
    """`loader.npz`, two pictures at 96 pixels, and `loader_table.json`, sizes."""
    if (folder / "loader.npz").is_file():
        arrays = Arrays(folder / "loader.npz")
        for case in ("down", "up"):
            rgb = prepare(arrays[f"{case}.u8"], size=96).rgb
            yield near(f"loader {case}.true_shape", [rgb.shape[:2]], arrays[f"{case}.true_shape"], 0)
            yield arrays.near(f"{case}.img", network_input(rgb[None]), LOADED)
        yield from arrays.left("no check reads it")
    else:
        yield absent("loader.npz")
    if (folder / "loader_table.json").is_file():
        table = json.loads((folder / "loader_table.json").read_text(encoding="utf-8"))
        wrong = [row for row in table if list(grid_for(tuple(row["in_wh"]), row["size"]).size) != row["out_wh"]]
        yield count("loader_table.json", wrong, len(table), of="sizes")
    else:
        yield absent("loader_table.json")


def check_published_keys(folder: Path) -> Iterator[Row]:
    """`published_keys.json`: names and shapes of the published network, second names included."""
    path = folder / "published_keys.json"
    if not path.is_file():
        yield absent("published_keys.json")
        return
    published = {name: tuple(shape) for name, shape in json.loads(path.read_text(encoding="utf-8")).items()}
    config = MatchingConfig()
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in MatchingNet(config).state_dict().items()}
    yield near("tensors with one name each", len(ours), len(published) - len(aliases(config)), 0)
    ours |= {second: ours[first] for second, first in aliases(config).items()}
    wrong = [name for name in ours.keys() | published.keys() if ours.get(name) != published.get(name)]
    yield count("published_keys.json", sorted(wrong), len(published), of="names and shapes")


def check_small(folder: Path) -> Iterator[Row]:
    """`model_small_*`: a random network, every layer of one pair, and the maps of each kind of batch."""
    if not (folder / "model_small_io.npz").is_file():
        yield absent("model_small_io.npz")
        return
    net, arrays = small_network(folder), Arrays(folder / "model_small_io.npz")
    cases = {
        "landscape": lambda: forward_arrays(net, arrays, "landscape."),
        "portrait": lambda: forward_arrays(net, arrays, "portrait."),
        "mixed": lambda: forward_arrays(net, arrays, "mixed."),
        "symmetric": lambda: symmetric_arrays(net, arrays),
        "manyar": lambda: _by_view(answer_stored(net, *(torch.from_numpy(arrays[f"manyar.{n}"]) for n in STORED))),
    }
    for case, answers in cases.items():
        if f"{case}.img1" in arrays:
            yield from _compared(arrays, f"{case}.", answers(), SMALL)
        else:
            yield absent(f"{arrays.label} {case}")


def check_heads(folder: Path) -> Iterator[Row]:
    """`post.*` of `model_small_io.npz`: raw channels of a head, made points and descriptors in three ways."""
    if not (folder / "model_small_io.npz").is_file():
        yield absent("model_small_io.npz")
        return
    arrays = Arrays(folder / "model_small_io.npz")
    raw = torch.from_numpy(arrays["post.raw"])
    points, confidence = pointmap(raw[:, :4])
    for case, fields in POST.items():
        config = replace(MatchingConfig(), **fields)
        made = descriptors(raw[:, 4:].movedim(1, -1), confidence, config)
        ours = dict(zip(MAPS, (points, confidence, *made)))
        yield from _compared(arrays, f"post.{case}.", ours, SMALL)


def check_full_size(folder: Path) -> Iterator[Row]:
    """`model_full_formula.npz`: the published architecture, its weights by their formula. 2.8 GB of memory."""
    path = folder / "model_full_formula.npz"
    if not path.is_file():
        yield absent(path.name)
        return
    arrays, config = Arrays(path), MatchingConfig()
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MatchingNet(config).state_dict().items()}
    state = formula_state(shapes)
    sums = [name for name in arrays if name.startswith("wsum.")]
    wrong = [name for name in sums if not _same_sums(state[name.removeprefix("wsum.")], arrays[name])]
    yield count("wsum", wrong, len(sums), of="tensors")
    net = MatchingNet.from_state(config, state)
    del state
    for n in (1, 2):
        arrays[f"img{n}_u8"]
    yield from _compared(arrays, "", forward_arrays(net, arrays, ""), FULL_SIZE)


def _same_sums(tensor: Tensor, recorded: np.ndarray) -> bool:
    flat = tensor.double().flatten()
    ours = [flat.sum(), flat.square().sum(), flat[0], flat[-1]]
    # A sum of numbers of both signs is near 0, and as exact as its terms are large.
    return np.allclose(ours, recorded, rtol=1e-9, atol=1e-9 * max(1.0, float(flat.abs().sum())))


def small_network(folder: Path) -> MatchingNet:
    """The small network of a folder, its weights in half precision brought to float32."""
    fields = json.loads((folder / "model_small_config.json").read_text(encoding="utf-8"))
    dpt = {f"dpt_{name}": value for name, value in fields["dpt"].items() if name not in ("hooks", "patch_size")}
    config = MatchingConfig.from_fields({**fields["model"], **dpt})
    if list(config.hooks) != fields["dpt"]["hooks"]:
        raise ValueError(f"hooks {config.hooks} instead of {fields['dpt']['hooks']}")
    with np.load(folder / "model_small_weights.npz") as weights:
        state = {name: torch.from_numpy(weights[name].astype(np.float32)) for name in weights.files}
    return MatchingNet.from_state(config, state)


def _compared(arrays: Arrays, prefix: str, ours: Mapping[str, Tensor], tolerance: float) -> Iterator[Row]:
    """A row for each recorded array with the prefix, but for pictures and what was answered already."""
    given = ("img", "true_shape", "wsum.")
    for name in (n for n in arrays if n.startswith(prefix) and not n.removeprefix(prefix).startswith(given)):
        mine = ours.get(name.removeprefix(prefix))
        label = f"{arrays.label} {name}"
        if mine is None:
            yield Row(label, False, note="the network has nothing of this name")
        else:
            yield by_largest(label, mine, arrays[name], 0 if re.search(r"pos\d$", name) else tolerance)


@torch.inference_mode()
def forward_arrays(net: MatchingNet, arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    """Everything that a recorded pair may hold, by its name."""
    ours: dict[str, Tensor] = {}
    views = [_encoded(net, picture) for picture in _pictures(arrays, prefix)]
    heads = (net.downstream_head1, net.downstream_head2)
    for n, (view, features) in enumerate(zip(views, net.decode(*views, keep=range(net.config.dec_depth + 1))), 1):
        ours |= {f"enc{n}": view.tokens, f"pos{n}": grid_positions(view.grid)[None]}
        ours |= {f"dec{n}.{level}": feature for level, feature in features.items()}
        layers = [features[hook] for hook in net.config.hooks]
        ours[f"raw_dpt{n}"] = heads[n - 1].dpt(layers, view.grid)
        ours[f"raw_mlp{n}"] = heads[n - 1].head_local_features(torch.cat((layers[0], layers[-1]), -1))
    return ours | _by_view(net.pair(*views))


@torch.inference_mode()
def symmetric_arrays(net: MatchingNet, arrays: Arrays) -> dict[str, Tensor]:
    """Both orders of the pair `symmetric`, each picture encoded once; `21` is pixels of 2 in the frame of 1."""
    one, two = (_encoded(net, picture) for picture in _pictures(arrays, "symmetric."))
    ours = {}
    for names, order in ((("11", "21"), (one, two)), (("22", "12"), (two, one))):
        maps = net.pair(*order)
        ours |= {f"{name}.{key}": getattr(maps, f"{key}_{v}") for v, name in enumerate(names, 1) for key in MAPS}
    return ours


@torch.inference_mode()
def answer_stored(net: MatchingNet, img1: Tensor, img2: Tensor, shape1: Tensor, shape2: Tensor) -> MatchingViews:
    """The answer to a batch as training data is stored: pictures all landscape, portraits transposed to it.

    `img1`, `img2` (B, 3, H, W), `shape1`, `shape2` (B, 2) the true (height, width). The maps come back as stored.
    """
    rows: list[list[Tensor]] = []
    portraits = ((shape1[:, 0] > shape1[:, 1]).tolist(), (shape2[:, 0] > shape2[:, 1]).tolist())
    for k, portrait in enumerate(zip(*portraits)):
        pictures = (img[k : k + 1] for img in (img1, img2))
        maps = net(*(picture.mT if turned else picture for picture, turned in zip(pictures, portrait)))
        named = ((int(name[-1]), getattr(maps, name)) for name in maps.__dataclass_fields__)
        rows.append([each.transpose(1, 2) if portrait[view - 1] else each for view, each in named])
    return MatchingViews(*map(torch.cat, zip(*rows)))


def _pictures(arrays: Arrays, prefix: str) -> Iterable[Tensor]:
    """The pair's two pictures as the network takes them."""
    if f"{prefix}img1" in arrays:
        return (torch.from_numpy(arrays[f"{prefix}img{n}"]) for n in (1, 2))
    return (network_input(np.moveaxis(arrays[f"{prefix}img{n}_u8"], 0, -1)[None]) for n in (1, 2))


def _encoded(net: MatchingNet, picture: Tensor) -> Encoded:
    return Encoded(net.encode(picture), net.config.grid(*picture.shape[-2:]))


def _by_view(maps: MatchingViews) -> dict[str, Tensor]:
    """The maps under their recorded names; points of view 2 have a longer one."""
    ours = {f"view{v}.{name}": getattr(maps, f"{name}_{v}") for v in (1, 2) for name in MAPS}
    return ours | {"view2.pts3d_in_other_view": ours["view2.pts3d"]}
