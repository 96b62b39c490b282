"""Where an export goes: a new folder that appears whole or not at all, and what is said about it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..wire import Capture, UserError, check_writable, names_in, staged_folder


@dataclass(frozen=True)
class Exported:
    """What an export wrote: `skipped` lists the frames that are not in it because they have no camera."""

    folder: Path
    files: tuple[str, ...]
    frames: int
    skipped: tuple[int, ...]

    def __str__(self) -> str:
        text = f"{len(self.files)} files for {self.frames} frames in {self.folder}"
        if self.skipped:
            text += f"; skipped without a camera: {', '.join(map(str, self.skipped))}"
        return text


@contextmanager
def export_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` when the block ends well; UserError when that holds something."""
    folder = Path(folder).absolute()
    check_writable(folder)
    if names_in(folder):
        raise UserError(f"The folder {folder} is not empty", "choose a new folder for the export")
    with staged_folder(folder, "The export") as staging:
        yield staging


def exported(capture: Capture, staging: Path, folder: Path) -> Exported:
    """The report on the files in `staging`, which are about to appear as `folder`."""
    files = tuple(sorted(p.relative_to(staging).as_posix() for p in staging.rglob("*") if p.is_file()))
    skipped = frames_without_camera(capture)
    return Exported(Path(folder).absolute(), files, capture.frame_count - len(skipped), skipped)


def frames_without_camera(capture: Capture) -> tuple[int, ...]:
    """Frames, counted from 0, whose camera is not known."""
    return tuple(np.flatnonzero(~capture.has_camera).tolist())
