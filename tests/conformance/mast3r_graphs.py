"""Conformance of scene graphs and retrieval: `misc.json` scene_graphs, and fps.*, ret.*, asmk.* of `misc.npz`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.sparse.graph import key_frames, retrieval_pairs, set_pairs
from backend.sparse.retrieval import Whitening, asmk_scores, pooled, strongest

from .rows import Arrays, Row, absent, count

EXACT = 1e-5


def check_graphs(folder: Path) -> Iterator[Row]:
    """Pairs of every recorded graph, and those by farthest points."""
    if (folder / "misc.json").is_file():
        graphs = json.loads((folder / "misc.json").read_text(encoding="utf-8")).get("scene_graphs", {})
        for name, recorded in graphs.items():
            frames, graph, *prefilter = name.split(":")
            ours = set_pairs(graph, int(frames), prefilter=prefilter[0] if prefilter else None)
            theirs = {tuple(pair) for pair in recorded["unordered"]}
            yield count(f"scene graph {name}", sorted(theirs.symmetric_difference(ours)), len(theirs), of="pairs")
            if "n_ordered" in recorded:
                wrong = [] if 2 * len(ours) == recorded["n_ordered"] else [f"{2 * len(ours)}"]
                yield count(f"scene graph {name}, in both orders", wrong, recorded["n_ordered"], of="pairs")
    else:
        yield absent("misc.json")
    if not (folder / "misc.npz").is_file():
        yield absent("misc.npz")
        return
    arrays = Arrays(folder / "misc.npz")
    for case in sorted(match[1] for name in arrays if (match := re.fullmatch(r"fps\.(\d+_\d+)\.pairs", name))):
        keys, nearest = map(int, case.split("_"))
        theirs = arrays[f"fps.{case}.keyframes"].astype(int).tolist()
        ours = key_frames(arrays["fps.sim"], keys, theirs[0] if theirs else 0)
        yield count(f"fps.{case}.keyframes", [] if ours == theirs else [ours], 1, of="orders")
        pairs = {tuple(pair) for pair in arrays[f"fps.{case}.pairs"].tolist()}
        ours = retrieval_pairs(arrays["fps.sim"], theirs, nearest)
        yield count(f"fps.{case}.pairs", sorted(pairs.symmetric_difference(ours)), len(pairs), of="pairs")


def check_retrieval(folder: Path) -> Iterator[Row]:
    """Whitening, attention, the strongest features, the pooled one, and scores by the codebook."""
    if not (folder / "misc.npz").is_file():
        yield absent("misc.npz")
        return
    arrays = Arrays(folder / "misc.npz")

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(arrays[name])

    if arrays.has("ret.m", "ret.p", "ret.tokens"):
        given = Whitening(tensor("ret.m")[0], tensor("ret.p"))
        if "ret.train" in arrays:
            learned = Whitening.learned([tensor("ret.train")], directions=given.matrix.shape[1])
            yield arrays.near("ret.m", learned.mean[None], EXACT)
            # Axes may point either way: what they make of all directions is the same.
            ours, theirs = (w.matrix @ w.matrix.T for w in (learned, given))
            largest = float(theirs.abs().max())
            deviation = float((ours - theirs).abs().max()) / largest
            yield Row("misc ret.p, its inverse covariance", deviation <= EXACT, deviation, EXACT)
        white = given(tensor("ret.tokens"))
        yield arrays.near("ret.whitened", white, EXACT, relative=True)
        yield arrays.near("ret.attention", torch.linalg.vector_norm(white, dim=-1), EXACT, relative=True)
        if "ret.sel_idx" in arrays:
            chosen = [strongest(each, arrays["ret.sel_idx"].shape[1]) for each in white]
            yield arrays.near("ret.sel_idx", torch.stack([index for _, index in chosen]), 0)
            yield arrays.near("ret.sel_feat", torch.stack([feature for feature, _ in chosen]), EXACT, relative=True)
        yield arrays.near("ret.global", pooled(white), EXACT)
    else:
        yield absent("misc ret.*")
    if arrays.has("asmk.centroids", "asmk.feat", "asmk.ids"):
        pictures = np.unique(arrays["asmk.ids"])
        features = [tensor("asmk.feat")[arrays["asmk.ids"] == picture] for picture in pictures]
        yield arrays.near("asmk.scores", asmk_scores(features, tensor("asmk.centroids")), EXACT)
    else:
        yield absent("misc asmk.*")
