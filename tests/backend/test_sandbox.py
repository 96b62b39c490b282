"""Hostile footage: one sentence to whoever sent it, no other file read, and no more memory than a clip may have."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.footage.source import MAX_PLATE_SIDE
from backend.server import sandbox
from backend.server.asides import COMMAND
from backend.server.process import REPO, Outcome, WorkerProcess
from backend.wire import UserError
from tests.footage import pictures, write_video
from tests.serving import SETTINGS

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone enforces the limits")
HUGE = 60_000


def png_header(folder: Path) -> Path:
    """Images whose header claims 60000 x 60000 pixels, with the beginning of such a picture, which is all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
    black = zlib.compress(bytes(100 * (1 + 3 * HUGE)))
    for n in range(3):
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", black) + chunk(b"IEND", b"")
        (folder / f"{n}.png").write_bytes(data)
    return folder


def tiff_header(folder: Path) -> Path:
    """16-bit images that a library of ours reads alone, whose header claims 60000 x 60000 pixels."""
    for n in range(3):
        path = folder / f"{n}.tif"
        cv2.imwrite(str(path), np.full((40, 60, 3), 3 * 257, np.uint16), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
        data = bytearray(path.read_bytes())
        at = struct.unpack_from("<I", data, 4)[0]
        for row in range(struct.unpack_from("<H", data, at)[0]):
            tag, kind, _ = struct.unpack_from("<HHI", data, at + 2 + 12 * row)
            if tag in (256, 257):  # ImageWidth, ImageLength
                struct.pack_into("<H" if kind == 3 else "<I", data, at + 2 + 12 * row + 8, HUGE)
        path.write_bytes(data)
    return folder


def video_header(folder: Path) -> Path:
    """A video whose pictures say by themselves that they are 60000 x 60000."""
    path = write_video(folder / "huge.mkv", pictures(5), codec="mjpeg", pix_fmt="yuvj420p")
    data = path.read_bytes()
    start = b"\xff\xc0\x00\x11\x08"
    size = struct.pack(">HH", 96, 160)
    assert start + size in data
    path.write_bytes(data.replace(start + size, start + struct.pack(">HH", HUGE, HUGE)))
    return path


def growing_video(folder: Path) -> Path:
    """One whose first pictures are honest, and the later ones huge."""
    path = video_header(folder)
    honest = write_video(folder / "honest.mkv", pictures(5), codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(honest[:half] + data[half:])
    return path


def list_of_files(folder: Path) -> Path:
    """A list of another video of this machine, named as a video."""
    secret = write_video(folder / "secret.mp4", pictures(5))
    path = folder / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    return path


def stream_list(folder: Path) -> Path:
    """The same as a stream's list of parts, one of them in the list itself."""
    secret = write_video(folder / "secret.mp4", pictures(5))
    path = folder / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXTINF:9,\ndata:video/mp4;base64,AAAA\n")
    return path


HOSTILE = {
    png_header: "is too large; at most 8192 pixels a side",
    tiff_header: "at most 8192 pixels a side",
    video_header: "No frame of huge.mkv could be decoded|60000x60000; at most 8192",
    list_of_files: "list.mp4 is not a video",
    stream_list: "list.m3u8 is not a video",
}


@pytest.mark.parametrize(("make", "says"), HOSTILE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_look_at_hostile_footage_ends_with_a_sentence(tmp_path, make, says):
    path = make(tmp_path)
    told = subprocess.run(
        [*COMMAND, "probe"], input=json.dumps({"path": str(path)}), capture_output=True, text=True, cwd=REPO, check=True
    )
    answer = json.loads(told.stdout.splitlines()[-1])
    assert "answer" not in answer
    assert any(text in answer["message"] for text in says.split("|")), answer["message"]
    assert answer["hint"]


def work(path: Path, folder: Path) -> Outcome:
    """What the server's worker makes of a clip."""
    spec = {
        "clip": {"path": str(path)},
        "masks": None,
        "settings": SETTINGS,
        "out": str(folder / "capture"),
        "scratch": str(folder / "scratch"),
        "log": str(folder / "log.txt"),
        "replace": True,
    }
    worker = WorkerProcess(spec, folder / "log.txt")
    while not isinstance(event := worker.events.get(timeout=60), Outcome):
        pass
    return event


@pytest.mark.slow
@pytest.mark.parametrize("make", [*HOSTILE, growing_video], ids=lambda make: make.__name__)
def test_the_worker_survives_hostile_footage(tmp_path, make):
    outcome = work(make(tmp_path), tmp_path / "job")
    assert (outcome.state, outcome.cause, outcome.bug) == ("failed", "", False)
    assert outcome.message
    assert outcome.report["peak_memory_bytes"] < 1e9


def in_a_child(code: str) -> str:
    """What a child prints that has the limits of a worker."""
    begin = "from backend.server import sandbox; sandbox.from_the_start()\n"
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@linux
def test_reading_a_clip_may_take_so_much_memory_and_no_more():
    said = in_a_child(
        "import numpy as np, resource\n"
        "from backend.wire import UserError\n"
        "sandbox.DECODING_BYTES = 200 * 2**20\n"
        "before = resource.getrlimit(resource.RLIMIT_DATA)\n"
        "with sandbox.decoding(): np.ones(100 * 2**20, np.uint8)\n"
        "try:\n"
        "    with sandbox.decoding(): np.ones(300 * 2**20, np.uint8)\n"
        "except UserError as error: print(error.message)\n"
        "assert resource.getrlimit(resource.RLIMIT_DATA) == before\n"
        "np.ones(300 * 2**20, np.uint8)\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
    )
    assert "takes more than 0.2 GB of memory" in said


@linux
def test_addresses_are_not_limited_as_cuda_takes_many():
    in_a_child(
        "import mmap\n"
        "with sandbox.decoding(): mmap.mmap(-1, 2**40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, 0)\n"
    )


@linux
def test_a_look_writes_no_file_and_ends(tmp_path):
    said = in_a_child(
        "import resource\n"
        f"file = open({str(tmp_path / 'written')!r}, 'wb', buffering=0)\n"
        "sandbox.for_a_look()\n"
        "try: file.write(b'x')\n"
        "except OSError as error: print(error.strerror)\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0])\n"
    )
    assert said.splitlines() == ["File too large", str(sandbox.LOOK_S)]


def test_opencv_refuses_by_the_header_what_pillow_does_not_know(tmp_path):
    said = in_a_child(
        "import cv2, numpy as np\n"
        f"try: cv2.imdecode(np.fromfile({str(tiff_header(tmp_path) / '0.tif')!r}, np.uint8), -1)\n"
        "except cv2.error as error: print(error.err)\n"
    )
    assert "CV_IO_MAX_IMAGE" in said


def test_the_largest_picture_is_the_same_everywhere():
    assert sandbox.PICTURE_SIDE == MAX_PLATE_SIDE


def test_too_much_memory_is_the_user_s_to_know():
    with pytest.raises(UserError, match="Reading the clip takes more than"), sandbox.decoding():
        raise MemoryError
