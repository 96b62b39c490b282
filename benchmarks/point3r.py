"""What the streaming engine costs as a clip gets longer, and how fast its network is at full size.

    python -m benchmarks.point3r                                  # 1000 frames, walking on and on; a few minutes
    python -m benchmarks.point3r --walk rounds --memory original  # the same way again and again, memory as published
    python -m benchmarks.point3r --part speed --device cuda --precision fastest

The weights are random, so times and memory are those of the published network, but its points would mean nothing, and
of such points the memory neither grows nor ends as it does in use. In their place come the true points of a building
through which a camera walks: after all layers were calculated, so that nothing is saved by it. Part "length" has every
layer of the published network with an eighth of its channels; part "speed" is the published size.

How many pointers there are: two places are one that are nearer than a twentieth of the diagonal of everything seen. On
a walk through new rooms this grows with the way, so that pointers come ever more slowly; on a walk in rounds both stay.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from backend.geometry.camera import rays
from backend.nets.point3r import Decoded, FrameMaps, Point3RConfig, Point3RNet
from backend.nets.point3r_stream import Point3RStream
from backend.streaming.fusion import ORIGINAL, OURS

from .network import PRECISIONS, peak_memory, synchronize, table

#: Every layer of the published network, an eighth of its channels; heads are as many, and as narrow as they may be.
NARROW = Point3RConfig(
    enc_embed_dim=128, dec_embed_dim=96, dpt_feature_dim=32, dpt_last_dim=16, dpt_layer_dims=(12, 24, 48, 96)
)
MEMORIES = {"original": ORIGINAL, "ours": OURS}
#: Of the building, in metres: length of a room, half its width, half the width of its doors; how far the camera goes.
ROOM, HALF_WIDTH, HALF_DOOR, STEP = 6.0, 2.5, 0.7, 0.1
#: Frames of a round, there and back.
ROUND = 240
#: A walk's first share is the warm-up.
WARM = 0.2


def building(frame: int, size: tuple[int, int], rounds: bool) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) points in the camera and in the world: rooms in a row, doors now left, now right, a camera between."""
    width, height = size
    way = frame % ROUND if rounds else frame
    z = STEP * (min(way, ROUND - way) if rounds else way)
    eye = np.array([0.5 * np.sin(z), 0.05 * np.sin(5 * z), z])
    angle = 0.4 * np.sin(0.7 * z)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    inside = rays(np.array([0.7 * width, 0.7 * width, width / 2, height / 2]), width, height)
    d = inside @ turn.T
    far = np.full(d.shape[:2], np.inf)
    with np.errstate(divide="ignore"):
        for axis, wall in ((0, HALF_WIDTH), (0, -HALF_WIDTH), (1, 1.2), (1, -1.5)):
            t = (wall - eye[axis]) / d[..., axis]
            far = np.where((t > 0) & (t < far), t, far)
        room = int(np.floor(eye[2] / ROOM))
        for n in range(room, room + 4):
            t = (n * ROOM + ROOM - eye[2]) / d[..., 2]
            door = np.abs(eye[0] + t * d[..., 0] - (1 if n % 2 else -1)) < HALF_DOOR
            solid = ~door | (n == room + 3)
            far = np.where((t > 0) & (t < far) & solid, t, far)
    camera = inside * far[..., None]
    return camera, camera @ turn.T + eye


class WalkingNet(Point3RNet):
    """The network, whose points are put right after they were calculated."""

    points: tuple[np.ndarray, np.ndarray]

    def heads(self, decoded: Decoded, grid: tuple[int, int]) -> FrameMaps:
        maps = super().heads(decoded, grid)
        camera, world = (torch.from_numpy(p[None]).to(maps.points_world) for p in self.points)
        return replace(maps, points_camera=camera, points_world=world)


def random_net(config: Point3RConfig, device: torch.device) -> WalkingNet:
    """A network with the weights that its layers begin with."""
    torch.manual_seed(0)
    with device:
        return WalkingNet(config).eval().requires_grad_(False)


@dataclass(frozen=True)
class Mark:
    """What was measured after so many `frames`: `pointers` and their `pointer_bytes`, bytes that are `resident` and, on
    a graphics card, `held` in tensors and the `peak`. `seconds` is what nine of ten frames since the mark before took
    at least, since others on the machine only make them slower.
    """

    frames: int
    pointers: int
    pointer_bytes: int
    seconds: float
    resident: int
    held: int
    peak: int

    def row(self) -> tuple[str, ...]:
        mib = (f"{n / 2**20:.1f}" for n in (self.pointer_bytes, self.resident, self.held, self.peak))
        return str(self.frames), str(self.pointers), f"{1e3 * self.seconds:.0f}", *mib


HEADER = ("frames", "pointers", "ms a frame", "pointers MiB", "resident MiB", "device MiB", "device peak MiB")


def walked(stream: Point3RStream, frames: int, size: tuple[int, int], rounds: bool, marks: int = 20) -> Iterator[Mark]:
    """A mark each so many frames of a walk through the building."""
    rng, device = np.random.default_rng(0), stream.device
    times: list[float] = []
    for frame in range(frames):
        stream.network.points = building(frame, size, rounds)
        rgb = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        begin = clock(device)
        stream.push(rgb)
        synchronize(device)
        times.append(clock(device) - begin)
        if (frame + 1) % max(1, frames // marks) == 0:
            yield _mark(stream, times)
            times.clear()


def clock(device: torch.device) -> float:
    """Seconds: of the processor where that does the work, so that others on the machine do not count."""
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def _mark(stream: Point3RStream, times: list[float]) -> Mark:
    memory, on_gpu = stream.state.memory, stream.device.type == "cuda"
    used = sum(each.nbytes for each in (getattr(memory, field.name) for field in fields(memory)))
    held = torch.cuda.memory_allocated(stream.device) if on_gpu else 0
    peak = torch.cuda.max_memory_allocated(stream.device) if on_gpu else 0
    return Mark(stream.state.frames, len(memory), used, float(np.quantile(times, 0.1)), resident(), held, peak)


def resident() -> int:
    """Bytes of this process in main memory, after what is free was given back. 0 where the system does not tell."""
    gc.collect()
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    ctypes.CDLL(None).malloc_trim(0)
    rows = dict(line.split(":", 1) for line in status.read_text(encoding="ascii", errors="replace").splitlines())
    return 1024 * int(rows["VmRSS"].split()[0])


def length(options: argparse.Namespace) -> None:
    """The curve of a long walk."""
    device, size = torch.device(options.device), tuple(options.size or (128, 96))
    fusion = replace(MEMORIES[options.memory], most_read=options.read)
    stream = Point3RStream(random_net(NARROW, device), fusion, PRECISIONS[options.precision], device)
    rounds = options.walk == "rounds"
    marks: list[Mark] = []
    title = f"{options.frames} frames of {size[0]} x {size[1]}, {'in rounds' if rounds else 'on and on'}, memory"
    print(f"\n{title} {options.memory}, on {device}\n\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for mark in walked(stream, options.frames, size, rounds):
        marks.append(mark)
        print(f"| {' | '.join(mark.row())} |", flush=True)
    warm = [mark for mark in marks if mark.frames >= WARM * options.frames]
    first, last = warm[0], warm[-1]
    for name in ("resident", "held"):
        beside = [getattr(mark, name) - mark.pointer_bytes * (name == "held" or not last.held) for mark in warm]
        if getattr(last, name):
            slope = np.polyfit([mark.frames for mark in warm], beside, 1)[0]
            print(f"{name}, pointers aside: {slope * 100 / 2**10:+.1f} KiB in 100 frames after the warm-up")
    share = last.pointers / first.pointers, last.seconds / first.seconds
    print(f"from frame {first.frames} to {last.frames}: pointers x {share[0]:.2f}, time of a frame x {share[1]:.2f}")


@contextmanager
def timed_parts(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds spent in the network's parts meanwhile, with the device waited for after each."""
    spent: dict[str, float] = {}
    before = {name: getattr(WalkingNet, name) for name in ("encode", "later", "heads", "remembered")}

    def timed(name: str):
        def call(*arguments):
            synchronize(device)
            begin = clock(device)
            result = before[name](*arguments)
            synchronize(device)
            spent[name] = spent.get(name, 0.0) + clock(device) - begin
            return result

        return call

    for name in before:
        setattr(WalkingNet, name, timed(name))
    try:
        yield spent
    finally:
        for name, method in before.items():
            setattr(WalkingNet, name, method)


@torch.inference_mode()
def speed(options: argparse.Namespace) -> None:
    """Frames a second at full size, and where the time goes."""
    device, size = torch.device(options.device), tuple(options.size or (512, 288))
    fusion = replace(MEMORIES[options.memory], most_read=options.read)
    precision = replace(PRECISIONS[options.precision], compiled=options.compiled)
    net = random_net(Point3RConfig(), device)
    stream = Point3RStream(net, fusion, precision, device)
    first, count = options.warm_up, options.frames
    rng = np.random.default_rng(0)

    def push(frame: int) -> float:
        net.points = building(frame, size, False)
        rgb = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        begin = clock(device)
        stream.push(rgb)
        synchronize(device)
        return clock(device) - begin

    for frame in range(first):
        push(frame)
    pointers = len(stream.state.memory)
    with peak_memory(device) as peak:
        times = [push(frame) for frame in range(first, first + count)]
    most = peak()
    with timed_parts(device) as parts:
        whole = sum(push(frame) for frame in range(first + count, first + 2 * count))
    median = float(np.median(times))
    told = "not told" if most is None else f"{most / 2**30:.2f}"
    held = f"{pointers} to {len(stream.state.memory)}"
    table(
        f"Full size on {device}, {size[0]} x {size[1]}, {options.precision}, memory {options.memory}",
        ("frames", "pointers", "ms a frame", "frames/s", "peak GiB"),
        [(str(count), held, f"{1e3 * median:.1f}", f"{1 / median:.2f}", told)],
    )
    rest = whole - sum(parts.values())
    rows = [(name, f"{1e3 * spent / count:.1f}", f"{spent / whole:.0%}") for name, spent in parts.items()]
    table(
        "Where a frame's time goes, each part waited for",
        ("part", "ms", "share"),
        [*rows, ("pose memory, fusion, transfer", f"{1e3 * rest / count:.1f}", f"{rest / whole:.0%}")],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("length", "speed"), default="length")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"), help="multiples of 16")
    parser.add_argument("--frames", type=int, help="1000 for length; for speed 50 on a GPU and 2 elsewhere")
    parser.add_argument("--precision", choices=PRECISIONS, default="exact")
    parser.add_argument("--memory", choices=MEMORIES, default="ours")
    parser.add_argument("--read", type=int, default=0, help="pointers that the decoder sees at most; 0 for all")
    parser.add_argument(
        "--walk", choices=("on", "rounds"), default="on", help="length: through new rooms, or back again"
    )
    parser.add_argument("--warm-up", type=int, help="speed: frames before those that count")
    parser.add_argument("--compiled", action="store_true", help="speed: blocks and heads through torch.compile")
    options = parser.parse_args()
    fast = options.device != "cpu"
    if options.part == "length":
        options.frames = options.frames or 1000
        length(options)
    else:
        options.frames = options.frames or (50 if fast else 2)
        options.warm_up = options.warm_up if options.warm_up is not None else (100 if fast else 1)
        speed(options)


if __name__ == "__main__":
    main()
