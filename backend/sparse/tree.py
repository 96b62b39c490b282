"""The kinematic tree: which camera hangs on which, after how much each pair of frames shares. specs/mast3r.md 3.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import ward
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.distance import squareform

from ..wire import UserError
from .problem import PairMatches

_FULL = 3  # matches an anchor that make a pair as good as any
_STRANGERS = 2.0  # distance of frames without a match


@dataclass(frozen=True)
class Tree:
    """`edges` are (parent, child), each parent before its children; frames 0 .. N-1, N-1 edges."""

    root: int
    edges: tuple[tuple[int, int], ...]


def match_counts(pairs: Sequence[PairMatches], frame_count: int) -> np.ndarray:
    """(N, N) symmetric number of matches between frames, 0 on the diagonal."""
    counts = np.zeros((frame_count, frame_count))
    for pair in pairs:
        counts[pair.i, pair.j] = counts[pair.j, pair.i] = len(pair.matches)
    return counts


def kinematic_tree(counts: np.ndarray, anchors: np.ndarray, kind: str = "hclust-ward") -> Tree:
    """The tree over (N, N) `counts` of matches between frames of (N,) `anchors` each.

    `hclust-ward` joins clusters, by a frame that stands for each; two of them need not share a match. `mst` takes the
    pairs with the most matches, and raises UserError where these do not connect all frames, and for another kind.
    """
    if len(counts) == 1:
        return Tree(0, ())
    if kind == "hclust-ward":
        links = _clustered(counts, anchors)
    elif kind == "mst":
        links = _spanning(counts)
    else:
        raise UserError(f"There is no kinematic tree {kind!r}", "choose hclust-ward or mst")
    return _rooted(links, len(counts))


def _clustered(counts: np.ndarray, anchors: np.ndarray) -> list[tuple[int, int]]:
    """Links between the clusters' standing frames, merge after merge."""
    likeness = np.minimum(counts / (_FULL * np.minimum.outer(anchors, anchors)), 1)
    np.fill_diagonal(likeness, 1)
    distance = np.where(likeness > 0, 1 - likeness, _STRANGERS)
    standing = list(range(len(counts)))
    links = []
    for first, second, *_ in ward(squareform(distance, checks=False)):
        a, b = standing[int(first)], standing[int(second)]
        links.append((a, b))
        better, other = (a, b) if likeness[a].sum() > likeness[b].sum() else (b, a)
        likeness[better] = np.maximum(likeness[better], likeness[other])
        standing.append(better)
    return links


def _spanning(counts: np.ndarray) -> list[tuple[int, int]]:
    tree = minimum_spanning_tree(csr_array(-np.triu(counts, 1))).tocoo()
    if tree.nnz != len(counts) - 1:
        raise UserError("Some frames are not connected to the others by any match", "choose a wider scene graph")
    return list(zip(tree.row.tolist(), tree.col.tolist()))


def _rooted(links: list[tuple[int, int]], frame_count: int) -> Tree:
    """The links from the frame in the middle: the one that is visited late from either end."""
    low, high = np.sort(np.array(links), axis=1).T
    graph = csr_array((np.ones(len(links)), (low, high)), shape=(frame_count, frame_count))

    def visits(start: int) -> tuple[np.ndarray, np.ndarray]:
        return breadth_first_order(graph, start, directed=False)

    def ranks(order: np.ndarray) -> np.ndarray:
        rank = np.empty(frame_count, int)
        rank[order] = np.arange(frame_count)
        return rank

    one_end = visits(0)[0][-1]
    from_one = visits(one_end)[0]
    from_other = visits(from_one[-1])[0]
    root = int(np.minimum(ranks(from_one), ranks(from_other)).argmax())
    order, parent = visits(root)
    return Tree(root, tuple((int(parent[n]), int(n)) for n in order[1:]))
