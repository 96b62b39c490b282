"""Canonical views: what many views say of a frame, exactly, with movers left out, and the anchors of its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.sparse.anchors import all_anchored, anchored
from backend.sparse.canonical import BLOCK, CanonicalSums, CanonicalView, anchor_pixels, spread
from backend.sparse.views import View
from backend.wire import UserError

from .scenes import EXACT, arc, film, problem_of

FOCAL = 40.0


def wall(height: int = 16, width: int = 32) -> torch.Tensor:
    """(H, W, 3) points of a slanted wall, seen with a lens of `FOCAL` and the middle of the picture straight ahead."""
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    depth = 3 + 0.02 * x + 0.01 * y
    return torch.stack([x * depth / FOCAL, y * depth / FOCAL, depth], -1)


def view(points: torch.Tensor, confidence: float | torch.Tensor = 2.0) -> View:
    confidence = torch.as_tensor(confidence).expand(points.shape[:2])
    return View(points, confidence, points[..., :0], confidence)


def canonical(*views: View, mask: torch.Tensor | None = None) -> CanonicalView:
    sums = CanonicalSums(mask)
    for each in views:
        sums.add(each)
    return sums.finish()


def test_one_exact_view_is_itself():
    points = wall()
    made = canonical(view(points))
    torch.testing.assert_close(made.points, points)
    torch.testing.assert_close(made.confidence, torch.full((16, 32), 2 - 0.999))
    assert made.focal_px == pytest.approx(FOCAL, rel=1e-5)
    torch.testing.assert_close(made.core_depth, points[4::8, 4::8, 2])
    torch.testing.assert_close(spread(made.core_depth) * made.depth_ratio, points[..., 2])


def test_views_count_by_their_confidence():
    points = wall()
    made = canonical(view(points, 2.0), view(1.3 * points, 4.0))
    weights = np.array([2, 4]) - 0.999
    mean = float((weights * [1, 1.3]).sum() / weights.sum())
    torch.testing.assert_close(made.points, mean * points)
    torch.testing.assert_close(made.confidence, torch.full((16, 32), float((weights**2).sum() / weights.sum())))
    # relief is by the views' plain mean size, as in the original, which differs a little
    torch.testing.assert_close(spread(made.core_depth) * made.depth_ratio, mean * points[..., 2], rtol=4e-3, atol=0)


def test_half_precision_is_summed_in_single():
    made = canonical(*[view(wall().half()) for _ in range(40)])
    assert made.points.dtype == torch.float32
    torch.testing.assert_close(made.points, wall().half().float())


def test_a_room_keeps_its_depth_over_edges():
    """Pillars in front of walls: a block's pixels keep their own depth, however far from their anchor's."""
    world = film(arc(3))
    for n, made in enumerate(problem_of(world, [], EXACT).views):
        depth = (spread(made.core_depth) * made.depth_ratio).numpy()
        np.testing.assert_allclose(depth, world.depth[n], rtol=2e-5)
        assert made.focal_px == pytest.approx(110, rel=1e-4)


def test_what_a_mover_does_changes_nothing_else():
    points, mask = wall(), torch.zeros(16, 32, dtype=torch.bool)
    mask[2:7, 3:9] = True  # over the anchors of one block, beside that of the next
    made = []
    for depth in (0.5, 2.5):
        spoiled = points.clone()
        spoiled[mask] = torch.tensor([0.7, -0.4, depth])
        made.append(canonical(view(spoiled, 9.0), view(1.1 * spoiled), mask=mask))
    one, two = made
    assert (one.confidence[mask] == 0).all()
    assert (one.confidence[~mask] > 0).all()
    assert one.focal_px == two.focal_px == pytest.approx(FOCAL, rel=1e-5)
    for made_of in ("points", "depth_ratio", "confidence"):
        torch.testing.assert_close(getattr(one, made_of)[~mask], getattr(two, made_of)[~mask])
    torch.testing.assert_close(one.core_depth, two.core_depth)
    depth = spread(one.core_depth) * one.depth_ratio
    torch.testing.assert_close(depth[~mask], one.points[~mask][:, 2], rtol=4e-3, atol=0)


def test_an_anchor_under_a_mask_moves_to_the_nearest_pixel_outside():
    mask = torch.zeros(8, 24, dtype=torch.bool)
    mask[:, :4] = mask[2:, 4:6] = True  # the first block: its middle (4, 4) is masked, the nearest beside is (6, 4)
    mask[:, 8:16] = True  # all of the second
    assert anchor_pixels(mask).tolist() == [[4 * 24 + 6, 4 * 24 + 12, 4 * 24 + 20]]
    assert anchor_pixels(torch.zeros(16, 16, dtype=torch.bool)).tolist() == [[68, 76], [196, 204]]


def test_a_frame_without_a_view_or_all_masked_is_refused():
    with pytest.raises(UserError, match="no pair has it"):
        CanonicalSums().finish()
    with pytest.raises(UserError, match="all of it is masked"):
        canonical(view(wall()), mask=torch.ones(16, 32, dtype=torch.bool))


def test_sizes_are_whole_blocks_and_stay_the_same():
    with pytest.raises(ValueError, match="whole blocks"):
        CanonicalSums().add(view(wall(20, 32)))
    sums = CanonicalSums()
    sums.add(view(wall()))
    with pytest.raises(ValueError, match="among those"):
        sums.add(view(wall(32, 16)))


def test_pixels_know_their_anchor():
    made = canonical(view(wall()))
    pixels = torch.tensor([[0, 0], [31, 15], [12, 4], [9, 3]])
    found = anchored(pixels, made)
    assert found.anchor.tolist() == [0, 7, 1, 1]
    assert found.ratio[2] == 1  # the anchor itself
    torch.testing.assert_close(found.ratio, made.depth_ratio[pixels[:, 1], pixels[:, 0]])
    every = all_anchored(made)
    assert every.xy[:3].tolist() == [[0, 0], [1, 0], [2, 0]]
    assert torch.bincount(every.anchor).tolist() == [BLOCK**2] * 8
    depth = made.core_depth.flatten()[every.anchor] * every.ratio
    torch.testing.assert_close(depth.reshape(16, 32), wall()[..., 2])
