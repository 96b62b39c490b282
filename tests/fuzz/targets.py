"""What is fuzzed: everything that reads what the other side sent. A target raises when something escapes from it.

Only what NumPy and pyzmq need is imported here, so that a small environment will do.
"""

from __future__ import annotations

import atexit
import io
import json
import math
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from backend.server import keys
from backend.wire import JobSettings, capture, compact, connection, framing, messages
from blender_addon.wire import bundle, z85
from blender_addon.wire.connection import Connection
from blender_addon.wire.errors import ProtocolError, UserError
from blender_addon.wire.live import LiveFrame
from blender_addon.wire.results import check_files

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
HERE = Connection("tcp://gpu-box:4777", KEY, KEY, KEY, "0" * 32, 7)
JOB = "0123456789abcdef" * 2


@dataclass(frozen=True)
class Target:
    """`run` says of any bytes whether they are taken. `seeds` mostly are; `share` is how many of all inputs it gets."""

    name: str
    run: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]
    share: float


def parts_of(data: bytes) -> list[bytes]:
    """A multipart message of the data: parts are cut at 0xFF 0xFE, which no JSON holds; MAGIC may be written as M."""
    return [framing.MAGIC if part == b"M" else part for part in data.split(b"\xff\xfe")]


def message(data: bytes) -> bool:
    """decode, check_request and check_reply."""
    taken = False
    with suppress(ProtocolError):
        header, frames = framing.decode(parts_of(data))
        for check in (messages.check_request, messages.check_reply):
            with suppress(ProtocolError):
                assert check(header, frames) == header["t"]
                again, _ = framing.decode(framing.encode(header, frames))
                assert again == header
                taken = True
                if check is messages.check_reply and header["t"] == "result_index":
                    with suppress(UserError):
                        check_files(((row["name"], row["size"]) for row in header["files"]), header["total"])
    return taken


def header(data: bytes) -> bool:
    """The same with the data as the header alone, so that nothing is lost on the envelope."""
    return message(b"M\xff\xfe" + data.replace(b"\xff\xfe", b""))


def settings(data: bytes) -> bool:
    """JobSettings.from_json: what it takes is what it gives back, and all of it is within limits."""
    with suppress(ProtocolError, UserError):
        table, _ = framing.decode([framing.MAGIC, data])
        made = JobSettings.from_json(table)
        assert JobSettings.from_json(made.to_json()) == made
        for group in JobSettings.GROUPS:
            for value in getattr(made, group).to_json().values():
                assert isinstance(value, str) or (math.isfinite(value) and abs(value) < 2**31)
        assert len(made.canonical()) < 10_000
        return True
    return False


def pairing_code(data: bytes) -> bool:
    """Connection.from_code and key_of_code: what they take, they would have written."""
    text, taken = data.decode("utf-8", "replace"), False
    with suppress(UserError):
        made = Connection.from_code(text)
        assert Connection.from_code(made.to_code()) == made
        taken = True
    with suppress(UserError):
        assert len(connection.key_of_code(text)) == 40
        taken = True
    return taken


def raw_code(data: bytes) -> bool:
    """A pairing code of these bytes with a right checksum: what follows the checksum is tried as well."""
    return pairing_code((connection.CODE + connection._to_base64(data + connection._check(data))).encode())


def connection_file(data: bytes) -> bool:
    """Connection.read, and a line of authorized_keys."""
    client = keys._client(data.decode("utf-8", "replace"))
    assert client is None or len(client.key) == 40
    with suppress(UserError):
        made = Connection.read(_file("connection.json", data))
        assert connection.is_address(made.address)
        assert all(len(z85.decode(key)) == 32 for key in (made.server_public_key, made.client_secret_key))
        return True
    return client is not None


def archive(data: bytes) -> bool:
    """bundle.unpack: nothing outside the folder, and no more than the archive holds."""
    with _folder() as folder, suppress(UserError):
        names = bundle.unpack(_file("images.tar", data), folder / "in")
        there = [p for p in folder.rglob("*") if p.name != "in"]
        assert sorted(there) == names
        assert all(p.is_file() and not p.is_symlink() and p.parent == folder / "in" for p in there)
        assert sum(p.stat().st_size for p in there) <= len(data)
        return True
    return False


def live_frame(data: bytes) -> bool:
    """LiveFrame.decode: what it takes, it gives back."""
    with suppress(ProtocolError):
        made = LiveFrame.decode(data)
        assert LiveFrame.decode(made.encode()).frame == made.frame
        return True
    return False


def capture_json(data: bytes) -> bool:
    """read_capture of a folder whose capture.json holds these bytes."""
    folder = _capture()
    (folder / "capture.json").write_bytes(data)
    with suppress(UserError):
        assert capture.read_capture(folder).frame_count == 2
        return True
    return False


def capture_array(data: bytes) -> bool:
    """read_capture of a folder whose depth.npy holds these bytes."""
    folder = _capture()
    info = json.loads(_info()) | {"files": {"depth.npy": len(data)}}
    (folder / "capture.json").write_text(json.dumps(info))
    (folder / "depth.npy").write_bytes(data)
    try:
        with suppress(UserError):
            assert capture.read_capture(folder).depth.dtype == np.float32
            return True
        return False
    finally:
        np.save(folder / "depth.npy", np.ones((2, 2, 3), np.float32))


def packed_result(data: bytes) -> bool:
    """compact.unpack: nothing outside the folder."""
    with _folder() as folder, suppress(UserError):
        place = folder / "in"
        place.mkdir()
        compact.unpack(_file("capture.kc", data), place)
        assert (place / "capture.json").is_file()
        assert all(p.parent == place for p in folder.rglob("*") if p != place)
        return True
    return False


def packed_table(data: bytes) -> bool:
    """The same with the data as the table of a file whose pieces are good."""
    good = _packed()
    length = struct.unpack("<I", good[-8:-4])[0]
    return packed_result(good[: -8 - length] + data + struct.pack("<I", len(data)) + compact.MAGIC)


# Seeds


def _message_seeds() -> list[bytes]:
    return [b"M\xff\xfe" + seed + b"\xff\xfe" * (b"chunk" in seed) for seed in _header_seeds()] + [b"M", b"\xff\xfe"]


def _header_seeds() -> list[bytes]:
    """One of each request, push and reply, with values that their tables allow."""
    made = []
    for table in (messages.REQUESTS, messages.REPLIES, messages.PUSHES):
        for kind, fields in table.items():
            values = {name: _value(field) for name, field in fields.items()}
            made.append(json.dumps({"t": kind, "id": 1, **values}).encode())
    return made


def _value(kind: messages.Kind) -> object:
    """Something that the kind allows, or comes near."""
    rows = {
        **{"name": "capture.json", "size": 1, "sha256": "0" * 64, "job": JOB, "state": "done", "created": 1.0},
        **{"n": 1, "at": 1.0, "kind": "log", "level": "info", "text": "x", "hint": "", "frame": 1, "engine": "x"},
    }
    candidates: tuple[object, ...] = (
        *(1, 0.5, True, "x", "done", "file", "now", "exact", "video", "head", "normal", JOB, "0" * 64, "capture.json"),
        *([], {}, [rows], rows, JobSettings().to_json()),
    )
    return next((c for c in candidates if kind.allows(c)), None)


def _settings_seeds() -> list[bytes]:
    return [
        json.dumps(JobSettings().to_json()).encode(),
        json.dumps({"engine": "monst3r", "clip": {"first_frame": 3}, "lens": {"focal_mm": 35.5}}).encode(),
    ]


def _code_seeds() -> list[bytes]:
    return [HERE.to_code().encode(), connection.code_of_key(KEY).encode(), KEY.encode()]


def _raw_code_seeds() -> list[bytes]:
    return [connection._from_base64(code[len(connection.CODE) :])[:-4] for code in (HERE.to_code(),)]


def _connection_seeds() -> list[bytes]:
    HERE.write(_file("c.json", b""))
    return [_file("c.json").read_bytes(), f"{KEY} anna 2026-11-21".encode(), b"# a comment"]


def _archive_seeds() -> list[bytes]:
    made = []
    for names in (("a.png",), ("a.png", "b.png"), ("x" * 120 + ".png", "Läufer.png")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size = 3
                tar.addfile(entry, io.BytesIO(b"abc"))
        made.append(buffer.getvalue()[:6144])
    return made


def _live_seeds() -> list[bytes]:
    frame = LiveFrame(
        *(0, 0, (4, 3), np.eye(4), np.array([5.0, 5, 2, 1.5])),
        *(np.ones((2, 3), np.float32), np.ones((2, 3), np.uint8), np.ones(2, bool), 0.1),
    )
    return [frame.encode()]


def _capture_seeds() -> list[bytes]:
    return [_info()]


def _array_seeds() -> list[bytes]:
    made = []
    for array in (np.ones((2, 2, 3), np.float32), np.ones((2, 2, 3), "S4"), np.ones(3)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        made.append(buffer.getvalue())
    return made


def _packed_seeds() -> list[bytes]:
    return [_packed()]


def _table_seeds() -> list[bytes]:
    length = struct.unpack("<I", _packed()[-8:-4])[0]
    return [_packed()[-8 - length : -8]]


@cache
def _packed() -> bytes:
    folder = _capture()
    (folder / "capture.json").write_bytes(_info())
    compact.pack(folder, _work() / "seed.kc", "zlib")
    return (_work() / "seed.kc").read_bytes()


# Where it happens


@cache
def _work() -> Path:
    """A folder for this process, in memory where there is such a thing."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="kinora-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder, emptied afterwards."""
    folder = _work() / "empty"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _file(name: str, data: bytes | None = None) -> Path:
    path = _work() / name
    if data is not None:
        path.write_bytes(data)
    return path


@cache
def _capture() -> Path:
    """The folder of a capture of two frames of 3 x 2 pixels."""
    made = capture.Capture(
        clip=capture.ClipInfo("clip.mp4", (6, 4), Fraction(25), (0, 1), (0.0, 0.04)),
        plate_map=capture.PlateMap(0.5, 0.5),
        engine=capture.EngineStamp("fuzz", "1", "GPL-3.0-or-later", True),
        settings={},
        metric=False,
        confidence_meaning="none",
        confidence_default=0.5,
        world_from_camera=np.tile(np.eye(4), (2, 1, 1)),
        intrinsics=np.tile([5.0, 5, 1.5, 1], (2, 1)),
        rgb=np.zeros((2, 2, 3, 3), np.uint8),
        depth=np.ones((2, 2, 3), np.float32),
        confidence=np.ones((2, 2, 3), np.float16),
        dynamic=np.zeros((2, 2, 3), bool),
        frames=(capture.FrameReport(True),) * 2,
        shot=capture.ShotReport("moving", None, "prior"),
    )
    return capture.write_capture(made, _work() / "capture")


@cache
def _info() -> bytes:
    return (_capture() / "capture.json").read_bytes()


TARGETS = {
    target.name: target
    for target in (
        Target("message", message, _message_seeds, 0.24),
        Target("header", header, _header_seeds, 0.24),
        Target("settings", settings, _settings_seeds, 0.18),
        Target("pairing_code", pairing_code, _code_seeds, 0.12),
        Target("raw_code", raw_code, _raw_code_seeds, 0.06),
        Target("live_frame", live_frame, _live_seeds, 0.06),
        Target("connection_file", connection_file, _connection_seeds, 0.03),
        Target("archive", archive, _archive_seeds, 0.02),
        Target("capture_json", capture_json, _capture_seeds, 0.02),
        Target("capture_array", capture_array, _array_seeds, 0.01),
        Target("packed_result", packed_result, _packed_seeds, 0.01),
        Target("packed_table", packed_table, _table_seeds, 0.01),
    )
}
