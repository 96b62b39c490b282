"""Reciprocal matching beside the plain search: processor time, matches, and how many of them are right.

    python -m benchmarks.matching [--size 512 384] [--noise 0.03 0.1 0.3] [--without-plain]

Two frames of a synthetic room (tests/worlds.py) whose correspondences are known exactly, with descriptors that change
smoothly over its surfaces (tests/view_oracle.py) and errors of a given length, one run after the other in one process
on one thread. `plain` is the original's search as our own code has it; it looks for nearest neighbours both ways and
uses one, which is about half of its time. `together` compares the mean of both decodings. Times are of the processor,
as others may work on the machine. `benchmarks.mast3r` has the times on a graphics card.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from backend.matching.fast import match_views
from backend.matching.matches import Matches
from backend.sparse.views import SymmetricPair
from tests.view_oracle import ViewOracle
from tests.worlds import World, film, hand_held, square_intrinsics

from .mast3r_parts import match_errors, plain_matches
from .network import table

#: Beyond the first, a match is wrong for most uses; beyond the last, it is an outlier.
WITHIN_PX = (1.5, 3.0, 5.0)


def pair_of(width: int, height: int, noise: float) -> tuple[World, SymmetricPair]:
    """Frames of a hand-held camera that are some way apart, and what an oracle says of them."""
    world = film(hand_held(8)[2:6:3], square_intrinsics(0.9 * width, width, height, 2), width, height)
    return world, next(ViewOracle(world, descriptor_noise=noise).predict([(0, 1)]))


WAYS: dict[str, Callable[[SymmetricPair], Matches]] = {
    "plain": plain_matches,
    "ours": match_views,
    "ours, together": partial(match_views, together=True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table for each length of the descriptors' error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=(512, 384), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--noise", nargs="+", type=float, default=[0.1])
    parser.add_argument("--without-plain", action="store_true", help="it takes minutes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    header = ("", "CPU s", "times the first", "matches", *(f"within {limit:g} px" for limit in WITHIN_PX), "median px")
    for noise in options.noise:
        world, pair = pair_of(*options.size, noise)
        rows, taken = [], []
        for name, way in WAYS.items():
            if name == "plain" and options.without_plain:
                continue
            began = time.process_time()
            found = way(pair)
            taken.append(time.process_time() - began)
            errors = match_errors(world, pair, found)
            right = (f"{(errors < limit).mean():.2%}" for limit in WITHIN_PX)
            speed = (f"{taken[-1]:.2f}", f"{taken[0] / taken[-1]:.1f}")
            rows.append((name, *speed, str(len(found)), *right, f"{np.median(errors):.2f}"))
        table(f"{options.size[0]} x {options.size[1]}, errors of length {noise:g}", header, rows)


if __name__ == "__main__":
    main()
