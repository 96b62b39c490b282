"""A disk that is small, full at will and has room again: a file system in memory, or a limit on the size of files."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """`fill` leaves no byte, `free` gives back all that `fill` took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with open(self._ballast, "ab", buffering=0) as file:
            for block in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(block)):
                        pass

    def free(self) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of `size` bytes at `folder`; skips the test where nobody may mount one."""
    folder.mkdir()
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a file system in memory")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "kinora-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
