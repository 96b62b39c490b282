"""Size and time of a capture's files: python -m benchmarks.capture_write [--frames 65 --width 512 --height 288]"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from backend.export import CAPTURE_FILES, FORMATS
from backend.wire import Capture, read_capture, write_capture
from tests.worlds import as_capture, room


def measure(capture: Capture, folder: Path) -> tuple[list[tuple[str, float]], Counter[str]]:
    """Seconds of every writer, of the whole and of reading it again; bytes by kind of file."""
    rows: list[tuple[str, float]] = []

    def timed(name: str, work: Callable) -> Callable:
        def call(*arguments):
            began = time.perf_counter()
            result = work(*arguments)
            rows.append((name, time.perf_counter() - began))
            return result

        return call

    writers = [timed(f"  {writer.__name__}", writer) for writer in CAPTURE_FILES]
    timed("whole capture, flushed to the disk", lambda: write_capture(capture, folder, writers))()
    again = timed("read_capture", read_capture)(folder)
    for name, export in FORMATS.items():
        timed(f"export {name}", export)(again, folder.parent / name)
    sizes: Counter[str] = Counter()
    for path in folder.iterdir():
        sizes[f"{path.stem.rstrip('0123456789')}*.png" if path.suffix == ".png" else path.name] += path.stat().st_size
    return rows, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=65)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=288)
    parser.add_argument("--plate", type=int, nargs=2, default=(854, 480), metavar=("WIDTH", "HEIGHT"))
    args = parser.parse_args()
    capture = as_capture(room(args.frames, args.width, args.height), plate_size=tuple(args.plate))
    with tempfile.TemporaryDirectory(prefix="kinora-benchmark-") as scratch:
        rows, sizes = measure(capture, Path(scratch) / "capture")
    print(f"{args.frames} frames of {args.width} x {args.height}, plate {args.plate[0]} x {args.plate[1]}, ", end="")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "")
    for name, seconds in rows:
        print(f"{name:36} {seconds:7.2f} s")
    for name, size in sizes.most_common():
        print(f"{name:36} {size / 1e6:7.2f} MB")
    print(f"{'all files':36} {sizes.total() / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
