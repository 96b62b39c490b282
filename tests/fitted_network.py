"""A tiny random network that knows one clip: its last layers are fitted to exact pairs by least squares.

Random weights alone say nothing of a scene, and an engine rightly refuses what they say. With the last layers fitted,
the whole way from pictures to point maps is that of a real checkpoint, and what comes out is a scene.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from backend.align.predictions import PairPredictions
from backend.nets.pairwise import Encoded, PairwiseConfig, PairwiseNet
from backend.nets.predict import network_input

CONFIDENCE = 5.0
#: Ridge that keeps the solution small.
RIDGE = 1e-6


def tiny_network(size: tuple[int, int], seed: int = 0) -> PairwiseNet:
    """A random two-view network with linear heads, of 3 million numbers, for pictures of (width, height)."""
    torch.manual_seed(seed)
    config = PairwiseConfig(
        img_size=size,
        enc_embed_dim=192,
        enc_depth=2,
        enc_num_heads=3,
        dec_embed_dim=256,
        dec_depth=2,
        dec_num_heads=4,
        head="linear",
    )
    return PairwiseNet(config).eval().requires_grad_(False)


def fit(network: PairwiseNet, pictures: np.ndarray, truth: PairPredictions) -> PairwiseNet:
    """The network, its heads fitted to the truth of pairs of (T, H, W, 3) uint8 pictures; facts sheet, 2.6 and 2.7."""
    grid = network.config.grid(*pictures.shape[1:3])
    tokens = network.encode(network_input(np.asarray(pictures), "cpu"))
    i, j = truth.edges.T
    features = network.decode(Encoded(tokens[i], grid), Encoded(tokens[j], grid))
    heads = (network.downstream_head1, network.downstream_head2)
    for head, feature, points in zip(heads, features, (truth.points_i, truth.points_j)):
        distance = points.float().norm(dim=-1, keepdim=True)
        direction = points.float() / distance
        raw = torch.cat([direction * distance.log1p(), torch.full_like(distance, np.log(CONFIDENCE - 1))], -1)
        wanted = F.pixel_unshuffle(raw.movedim(-1, 1), network.config.patch_size).flatten(2).transpose(1, 2)
        x = feature[network.config.dec_depth].flatten(0, 1).double()
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        square = x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
        solution = torch.linalg.solve(square, x.T @ wanted.flatten(0, 1).double()).float()
        head.proj.weight.copy_(solution[:-1].T)
        head.proj.bias.copy_(solution[-1])
    return network
