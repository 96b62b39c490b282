"""What a job costs again when only its masks changed: python -m benchmarks.other_masks [CLIP]

A clip (the demo clip) is reconstructed by the classical engine with an empty cache, then with its own masks grown by a
few pixels as known ones, then with those once more, and last with them and without a cache. Seconds of processor time,
one thread; the captures of the last three are compared byte by byte.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from backend.pipeline import reconstruct
from backend.stage_memory import StageMemory
from backend.wire import JobSettings, capture

from .classical import DEMO
from .estimate import ProcessorRun


def grown_masks(made: Path, folder: Path) -> None:
    """Write the masks of a capture, grown by 4 pixels, to a new folder."""
    folder.mkdir()
    for n in range(len(np.load(made / "dynamic.npy", mmap_mode="r"))):
        mask = cv2.imread(str(made / capture.MASK_NAME.format(n)), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(folder / capture.MASK_NAME.format(n)), cv2.dilate(mask, np.ones((9, 9), np.uint8)))


def same_files(a: Path, b: Path) -> bool:
    """Whether two captures are the same but for their timings."""
    names = sorted(p.name for p in a.iterdir() if p.name != "capture.json")
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def main() -> None:
    """Print a table: a row a stage, a column a job."""
    clip = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO / "clip.mp4"
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        memory, columns = StageMemory(folder / "cache"), {}
        for name, kept in (("first", memory), ("masks", memory), ("again", memory), ("anew", None)):
            if name == "masks":
                grown_masks(folder / "first", folder / "grown")
            masks = None if name == "first" else folder / "grown"
            run = ProcessorRun(work_dir=folder, threads=1, memory=kept)
            began = time.process_time()
            reconstruct(clip, folder / name, JobSettings(), run, masks=masks)
            columns[name] = {**run.processor_s, "All": time.process_time() - began}
        print(f"{'':24}" + "".join(f"{name:>9}" for name in columns))
        for stage in columns["first"]:
            print(f"{stage:24}" + "".join(f"{column[stage]:9.2f}" for column in columns.values()))
        share = columns["masks"]["All"] / columns["anew"]["All"]
        print(f"With other masks {100 * share:.0f} % of what it takes anew")
        print("The same bytes:", all(same_files(folder / "anew", folder / name) for name in ("masks", "again")))
        size = sum(p.stat().st_size for p in (folder / "cache").rglob("*") if p.is_file())
        print(f"The cache holds {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
