"""Conformance of MASt3R's matching: reciprocal search, extraction from a pair, windows of large plates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from backend.matching.fast import match_described, match_seeds
from backend.matching.matches import Matches, first_of_each
from backend.matching.reciprocal import Described, nearest_in_blocks, reciprocal_walk, symmetric_matches
from backend.matching.windows import bucket_of, centred_crop, into_bucket, pair_windows, window_grid

from .rows import Arrays, Row, absent, count, guarded, near

_DECODINGS = (("11", "21"), ("12", "22"))
_WALKS = {
    "s8_dot": {},
    "s8_dot_basin": {},
    "s4_dot_blk256": {"subsample": 4, "block": 256},
    "s4_l2": {"subsample": 4, "distance": "l2"},
    "s4_kdtree": {"subsample": 4, "distance": "tree"},
    "s1_dot": {"subsample": 1},
}
_SEEDED = {"tol5": 5, "tol2": 2, "init_tol0": 0}
#: The last bit of a float32.
_ROUNDING = 1e-6


def check_matching(folder: Path) -> Iterator[Row]:
    """`fastnn.npz`: pixels must be the same, confidences to rounding."""
    if not (folder / "fastnn.npz").is_file():
        yield absent("matching")
        return
    arrays = Arrays(folder / "fastnn.npz")
    for part in (_walks, _exhaustive, _extraction, _merging, _ours):
        yield from guarded(f"fastnn {part.__name__[1:]}", partial(part, arrays))
    yield from arrays.left("nothing here answers to it")


def _walks(arrays: Arrays) -> Iterator[Row]:
    maps = [_tensor(arrays, f"desc{name}") for name in _DECODINGS[0]]
    for case, options in _WALKS.items():
        walk = reciprocal_walk(*maps, **options)
        yield from _pixels(arrays, case, walk.xy_1, walk.xy_2)
        if f"{case}.basin" in arrays:
            yield arrays.near(f"{case}.basin", walk.basin, 0)
    walk = reciprocal_walk(*maps)
    for side, xy, descriptors in (("xy1", walk.xy_1, maps[0]), ("xy2", walk.xy_2, maps[1])):
        yield arrays.near(f"s8_dot_flat.{side}", xy[:, 0] + descriptors.shape[1] * xy[:, 1], 0)
        yield arrays.near(f"s8_dot_yx.{side}", xy.flip(1).T, 0)
    if not arrays.has("tol5.init_x", "tol5.init_y"):
        yield absent("fastnn seeds")
        return
    for case, tolerance in _SEEDED.items():
        walk = reciprocal_walk(*maps, seeds=_seeds(arrays), pixel_tol=tolerance)
        yield from _pixels(arrays, case, walk.xy_1, walk.xy_2)


def _exhaustive(arrays: Arrays) -> Iterator[Row]:
    nearest = nearest_in_blocks(*(_tensor(arrays, f"desc{name}").flatten(0, 1) for name in _DECODINGS[0]))
    for side, ours in zip(("nn1", "nn2"), nearest):
        yield arrays.near(f"brute_dot.{side}", ours, 0)
    there, back = nearest
    mutual = (back[there] == torch.arange(len(there))).nonzero()[:, 0]
    yield arrays.near("brute_dot.reciprocal_idx1", mutual, 0)


def _extraction(arrays: Arrays) -> Iterator[Row]:
    decodings = _decodings(arrays)
    for case, subsample in (("extract_sym8", 8), ("extract_sym4", 4)):
        yield from _matches(arrays, case, symmetric_matches(decodings, subsample))
    for case, tolerance in (("extract_nonsym4_tol0", 0), ("extract_nonsym4_tol5", 5)):
        yield from _matches(arrays, case, symmetric_matches(decodings[:1], 4, "least", pixel_tol=tolerance))


def _merging(arrays: Arrays) -> Iterator[Row]:
    """Flat indices into pictures of the size of the descriptor maps."""
    if not arrays.has("merge.idx1", "merge.idx2"):
        yield absent("fastnn merge")
        return
    xy = []
    for name, picture in (("merge.idx1", "desc11"), ("merge.idx2", "desc21")):
        index, width = torch.from_numpy(arrays[name].astype(np.int64)), arrays[picture].shape[1]
        xy.append(torch.stack([index % width, index // width], -1))
    first = first_of_each(*xy)
    yield arrays.near("merge.index", first, 0)
    yield from _pixels(arrays, "merge", xy[0][first], xy[1][first])


def _ours(arrays: Arrays) -> Iterator[Row]:
    """The engines' search must find the same."""
    decodings, rows = _decodings(arrays), []
    for case, subsample in (("extract_sym8", 8), ("extract_sym4", 4)):
        rows += _matches(arrays, case, match_described([decodings], subsample=subsample, border=0)[0])
    if arrays.has("tol5.init_x", "tol5.init_y"):
        for case, tolerance in _SEEDED.items():
            found = match_seeds(*decodings[0], _seeds(arrays), tolerance)
            rows += _pixels(arrays, case, found.xy_1, found.xy_2)
    for row in rows:
        yield replace(row, name=f"{row.name}, by the fast search")


def _seeds(arrays: Arrays) -> torch.Tensor:
    """(K, 2), the same for all tolerances."""
    return torch.from_numpy(np.stack([arrays["tol5.init_x"], arrays["tol5.init_y"]], -1).astype(np.int64))


def _decodings(arrays: Arrays) -> list[tuple[Described, Described]]:
    def described(name: str) -> Described:
        return Described(_tensor(arrays, f"desc{name}"), _tensor(arrays, f"qconf{name}"))

    return [(described(one), described(two)) for one, two in _DECODINGS]


def _matches(arrays: Arrays, case: str, found: Matches) -> Iterator[Row]:
    yield from _pixels(arrays, case, found.xy_1, found.xy_2)
    yield arrays.near(f"{case}.conf", found.confidence, _ROUNDING, relative=True)


def _pixels(arrays: Arrays, case: str, xy_1: torch.Tensor, xy_2: torch.Tensor) -> Iterator[Row]:
    yield arrays.near(f"{case}.xy1", xy_1, 0)
    yield arrays.near(f"{case}.xy2", xy_2, 0)


def _tensor(arrays: Arrays, name: str) -> torch.Tensor:
    return torch.from_numpy(arrays[name].astype(np.float32))


def check_windows(folder: Path) -> Iterator[Row]:
    """`coarse_to_fine.npz`: windows and buckets must be the same, matrices to rounding."""
    if not (folder / "coarse_to_fine.npz").is_file():
        yield absent("coarse to fine")
        return
    arrays = Arrays(folder / "coarse_to_fine.npz")
    names = sorted({name.partition(".")[0] for name in arrays})
    for name in names:
        part = next((p for start, p in _PARTS.items() if name.startswith(start)), _choice)
        yield from guarded(f"coarse_to_fine {name}", partial(part, arrays, name))
    yield from arrays.left("nothing here answers to it")


def _grid(arrays: Arrays, name: str) -> Iterator[Row]:
    """Named after the plate's height and width."""
    height, width = (int(side) for side in name.removeprefix("grid_").split("x"))
    yield arrays.near(name, window_grid((height, width), bucket_of((height, width))), 0)


def _choice(arrays: Arrays, name: str) -> Iterator[Row]:
    sizes = (arrays[f"{name}.{key}"].tolist() for key in ("size_q_hw", "size_b_hw", "res_q_hw", "res_b_hw"))
    pairs = pair_windows(arrays[f"{name}.pts_q"], arrays[f"{name}.pts_b"], *map(tuple, sizes))
    yield arrays.near(f"{name}.crops_q", pairs.first, 0)
    yield arrays.near(f"{name}.crops_b", pairs.second, 0)


def _centred(arrays: Arrays, name: str) -> Iterator[Row]:
    width, height = arrays[f"{name}.imsize_wh"].tolist()
    ours = centred_crop(arrays[f"{name}.K"], arrays[f"{name}.crop"], (height, width))
    for key, matrix in zip(("K_new", "R", "H"), ours):
        yield arrays.near(f"{name}.{key}", matrix, 1e-9)


def _buckets(arrays: Arrays, name: str) -> Iterator[Row]:
    sizes = [tuple(size) for size in arrays[f"{name}.in_hw"].tolist()]
    chosen = [bucket_of(size) for size in sizes]
    theirs = [tuple(size) for size in arrays[f"{name}.out_hw"].tolist()]
    wrong = [size for size, ours, other in zip(sizes, chosen, theirs) if ours != other]
    yield count(f"{arrays.label} {name}.out_hw", wrong, len(sizes))
    matrices = [into_bucket(size, bucket) for size, bucket in zip(sizes, chosen)]
    for key, ours in zip(("to_rescaled", "to_orig"), zip(*matrices)):
        yield near(f"{arrays.label} {name}.{key}", np.stack(ours), arrays[f"{name}.{key}"], 1e-9)


_PARTS = {"grid_": _grid, "homo": _centred, "buckets": _buckets}
