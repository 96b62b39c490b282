"""Where an export goes: a new folder that appears whole or not at all, and what is said about it afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..wire import Capture, UserError
from ..wire import capture as capture_format


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
def staged_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes the name `folder` when the block ends well, and vanishes when it does not.

    Raises UserError when `folder` is a file, holds something, or cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file", "choose a new folder for the export")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"The folder {folder} is not empty", "choose a new folder for the export")
    staging = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                capture_format.fsync(path)
        capture_format.publish_folder(staging, folder)
    except OSError as error:
        raise UserError(
            f"The export could not be written to {folder} ({error.strerror or error})",
            "choose another folder or free some space",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def exported(capture: Capture, staging: Path, folder: Path) -> Exported:
    """The report on the files in `staging`, which are about to appear as `folder`."""
    files = tuple(sorted(p.relative_to(staging).as_posix() for p in staging.rglob("*") if p.is_file()))
    skipped = frames_without_camera(capture)
    return Exported(Path(folder).absolute(), files, capture.frame_count - len(skipped), skipped)


def frames_without_camera(capture: Capture) -> tuple[int, ...]:
    """Frames, counted from 0, whose camera is not known."""
    return tuple(np.flatnonzero(~capture.has_camera).tolist())
