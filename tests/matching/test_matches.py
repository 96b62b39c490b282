"""Sets of matches: joined, each pair of pixels once, without masks and borders."""

import torch

from backend.matching.matches import Matches, first_of_each, joined


def matches(*rows: tuple[int, int, int, int], confidence: list[float] | None = None) -> Matches:
    ends = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)
    sure = torch.tensor(confidence or [1.0] * len(rows))
    return Matches(ends[:, :2], ends[:, 2:], sure)


def rows(m: Matches) -> list[tuple[int, ...]]:
    return [tuple(r) for r in torch.cat([m.xy_1, m.xy_2], 1).tolist()]


def test_each_pair_once_row_by_row_and_the_first_is_kept():
    first = matches((5, 0, 1, 1), (0, 2, 3, 3), confidence=[1, 2])
    second = matches((0, 2, 3, 3), (9, 0, 0, 0), (5, 0, 0, 1), confidence=[3, 4, 5])
    once = joined([first, second]).unique()
    assert rows(once) == [(5, 0, 0, 1), (5, 0, 1, 1), (9, 0, 0, 0), (0, 2, 3, 3)]
    assert once.confidence.tolist() == [5, 1, 4, 2]


def test_of_nothing_there_is_nothing():
    nothing = joined([])
    assert len(nothing) == len(nothing.unique()) == len(nothing.without_border((4, 4), (4, 4))) == 0
    assert first_of_each(nothing.xy_1, nothing.xy_2).tolist() == []


def test_neither_end_may_lie_in_a_mask():
    found = matches((0, 0, 1, 1), (2, 1, 0, 0), (1, 1, 2, 0))
    mask_1, mask_2 = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask_1[1, 2] = mask_2[0, 2] = True
    assert rows(found.masked(mask_1, None)) == [(0, 0, 1, 1), (1, 1, 2, 0)]
    assert rows(found.masked(mask_1, mask_2)) == [(0, 0, 1, 1)]
    assert rows(found.swapped().masked(mask_2, mask_1)) == [(1, 1, 0, 0)]
    assert rows(found.masked(None, None)) == rows(found)


def test_the_border_counts_from_each_pictures_edges():
    found = matches((3, 3, 3, 3), (2, 3, 3, 3), (6, 6, 3, 3), (7, 6, 3, 3), (3, 3, 16, 9), (3, 3, 17, 9))
    assert rows(found.without_border((10, 10), (20, 13))) == [(3, 3, 3, 3), (6, 6, 3, 3), (3, 3, 16, 9)]
