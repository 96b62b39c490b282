"""Limits of a process while it decodes what strangers sent: memory, time, core dumps, the size of pictures."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..machine import memory_free
from ..wire import UserError

#: The longest side of a picture, as footage/source.py has it, which cannot be imported before OpenCV is told.
PICTURE_SIDE = 8192
#: Bytes that reading a clip may take on top of what the process had: sixteen 8K pictures as a codec keeps them.
DECODING_BYTES = 8 * 2**30
#: Share of the free memory that it may take at most.
DECODING_SHARE = 0.75
#: Bytes and seconds of the processor that a look at a clip may take (aside.py).
LOOK_BYTES, LOOK_S = 4 * 2**30, 30


def from_the_start() -> None:
    """No copy of the memory on the disk after a crash; and OpenCV, not loaded yet, refuses images by their header."""
    os.environ.update(
        OPENCV_IO_MAX_IMAGE_WIDTH=str(PICTURE_SIDE),
        OPENCV_IO_MAX_IMAGE_HEIGHT=str(PICTURE_SIDE),
        OPENCV_IO_MAX_IMAGE_PIXELS=str(PICTURE_SIDE**2),
    )
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Inside, this process may take DECODING_BYTES more memory; what asks for more fails with a UserError.

    The kernel's limit is on data (RLIMIT_DATA) and not on addresses, of which CUDA and memory-mapped files take far
    more than there is memory; only its soft side is lowered, and raised again behind. Linux alone enforces it.
    """
    room = min(DECODING_BYTES, int(DECODING_SHARE * memory_free()))
    try:
        with _data_limit(room):
            yield
    except MemoryError as error:
        raise UserError(
            f"Reading the clip takes more than {room / 1e9:.1f} GB of memory",
            "give a smaller clip, or re-encode it as H.264 in an .mp4",
        ) from error


def for_a_look() -> None:
    """Limits for the rest of a process that looks at one clip and writes nothing."""
    if sys.platform == "win32":
        return
    import resource

    _lower(resource.RLIMIT_CPU, LOOK_S)
    _lower(resource.RLIMIT_FSIZE, 0)
    if sys.platform == "linux":
        _lower(resource.RLIMIT_DATA, _data_bytes() + LOOK_BYTES)


@contextlib.contextmanager
def _data_limit(room: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    _lower(resource.RLIMIT_DATA, _data_bytes() + room)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _lower(kind: int, value: int) -> None:
    """Lower a soft limit, never beyond the hard one."""
    import resource

    soft, hard = resource.getrlimit(kind)
    lowest = min(v for v in (value, soft, hard) if v != resource.RLIM_INFINITY)
    resource.setrlimit(kind, (lowest, hard))


def _data_bytes() -> int:
    """Bytes of this process that RLIMIT_DATA counts (proc(5), VmData)."""
    rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return 1024 * int(rows["VmData"].split()[0])
