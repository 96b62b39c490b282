"""The camera of a stream against the truth: `python benchmarks/stream_poses.py --help`.

A walk of 200 frames once round a hall and a bit further; in the streaming network's place an oracle that errs as stated
in `tests/stream_oracle.py`. Printed are, for every seed (of the walk and of the errors): the error of the camera's path
after the best similarity (ATE, m), of its turns (degrees), and from frame to frame (RPE, m and degrees), of

    head         what the pose head says
    procrustes   the published way from pointmap to pointmap
    robust, pnp  ours, without the pictures
    stream       pnp steadied by the pictures: what a preview shows while the clip runs
    refined      the path after the clip: windows of neighbours aligned
    loops        the same with loops closed

and how far depth times the frame's scale is from the truth's, as the spread of the factor between them, per cent.
Parameters were chosen on seeds 101 to 103; the default seeds are others. Time is this process's own.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.geometry.trajectory import absolute_trajectory_error
from backend.streaming.loops import LoopFinder
from backend.streaming.poses import PoseOptions, PoseTracker
from backend.streaming.refining import refine_stream
from tests.stream_oracle import StreamOracle
from tests.streaming.walks import Walk, head_path
from tests.worlds import loop_walk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=[192, 128], help="width and height, multiples of 16")
    options = parser.parse_args()
    table: dict[str, list[float]] = {}
    for seed in options.seeds:
        world = loop_walk(options.frames, *options.size, seed=seed)
        for name, row in paths(world, seed):
            table.setdefault(name, []).append(row)
    print("\nmean of all seeds: ATE m")
    for name, rows in table.items():
        print(f"{name:12s} {np.mean(rows):8.4f}")


def paths(world, seed: int):
    """(name, ATE) of every way, printed as it comes."""
    oracle = StreamOracle(world, seed=seed)
    frames = [oracle.push(rgb) for rgb in world.rgb]
    print(f"\nseed {seed}      ATE m   turn deg   RPE m  RPE deg  depth %    ms/frame")

    def say(name: str, poses: np.ndarray, scale: np.ndarray, seconds: float):
        error = absolute_trajectory_error(poses, world.world_from_camera)
        print(
            f"{name:12s} {error.ate_rmse:8.4f} {error.rotation_deg_rmse:8.2f} {error.step_translation_rmse:9.4f}"
            f" {error.step_rotation_deg_rmse:8.3f} {100 * depth_spread(world, frames, scale):8.2f}"
            f" {1000 * seconds / len(frames):9.1f}",
            flush=True,
        )
        return name, error.ate_rmse

    one = np.ones(len(frames))
    yield say("head", head_path(frames), one, 0.0)
    for name, source, steady in (
        ("procrustes", "procrustes", False),
        ("robust", "robust", False),
        ("pnp", "pnp", False),
        ("stream", "pnp", True),
    ):
        tracker = PoseTracker(PoseOptions(source, steady))
        begin = time.process_time()
        found = [tracker.push(frame, rgb) for frame, rgb in zip(frames, world.rgb)]
        seconds = time.process_time() - begin
        poses, scale = np.stack([p.world_from_camera for p in found]), np.array([p.scale for p in found])
        yield say(name, poses, scale, seconds)
    walk = Walk(world, frames, tracker.focal_px)
    for name, loops in (("refined", None), ("loops", LoopFinder())):
        begin = time.process_time()
        path = refine_stream(walk, poses, scale, loops)
        yield say(name, path.world_from_camera, path.scale, time.process_time() - begin)
        if loops:
            print(f"  {len(path.loops)} loops, {len(path.rejected)} rejected, lens {walk.focal_px:.1f} px")


def depth_spread(world, frames, scale: np.ndarray) -> float:
    """Standard deviation over frames of the log of the scaled depth over the true one."""
    logs = [
        np.median(np.log(s * f.points_camera[..., 2] / true)[np.isfinite(true)])
        for f, s, true in zip(frames, scale, world.depth)
    ]
    return float(np.std(logs))


if __name__ == "__main__":
    main()
