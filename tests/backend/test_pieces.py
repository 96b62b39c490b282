"""Pieces on the wire: long ones on a quick line, short ones on a slow one, and one frame each for an older side."""

import asyncio
import hashlib
import os
import zlib

import pytest

from backend.server import transfer_requests
from backend.wire import JobSettings, framing, messages, read_capture
from blender_addon import transfer
from blender_addon.client import JobDone
from blender_addon.link import Link
from blender_addon.transfer import Pace, windowed
from tests.serving import RawClient, client, clip_that, reconstruct, server, wait_for

CHUNK, MOST = framing.CHUNK, framing.CHUNKS_MOST * framing.CHUNK


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("kinora") / "home"


@pytest.fixture(scope="module")
def broker(home):
    with server(home) as it:
        yield it


def large_clip(folder, chunks):
    path = clip_that(folder, "work")
    with open(path, "ab") as file:
        file.write(os.urandom(chunks * CHUNK))
    return path


class Said:
    """The pieces that links move: (kind, frames, bytes) of each message."""

    def __init__(self, monkeypatch):
        self.pieces, request = [], Link.request

        async def recorded(link, kind, frames=(), /, **fields):
            reply = await request(link, kind, frames, **fields)
            moved = frames if kind == "upload_chunk" else reply[1]
            if moved:
                self.pieces.append((kind, len(moved), sum(map(len, moved))))
            return reply

        monkeypatch.setattr(Link, "request", recorded)

    def of(self, kind):
        return [(frames, size) for name, frames, size in self.pieces if name == kind]


def test_pieces_of_several_frames_are_taken_in_their_order_and_only_once(broker, home):
    data = os.urandom(7 * CHUNK + 5)
    sha256 = hashlib.sha256(data).hexdigest()
    frames = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    with RawClient(broker.connection) as raw:
        raw.ask("upload_open", sha256=sha256, size=len(data))

        def put(first, last, **crc):
            return raw.ask("upload_chunk", *frames[first:last], sha256=sha256, off=first * CHUNK, **crc)

        assert put(0, 3, crc=zlib.crc32(data[: 3 * CHUNK]))["have"] == 3 * CHUNK
        assert put(3, 6, crc=zlib.crc32(data[: 3 * CHUNK]))["code"] == "bad_chunk"
        assert put(4, 8)["code"] == "bad_offset"
        assert put(1, 5)["have"] == 5 * CHUNK, "of what is there in part, the rest"
        assert put(1, 3)["have"] == 5 * CHUNK
        assert put(5, 8)["have"] == len(data)
        wait_for(lambda: raw.ask("upload_open", sha256=sha256, size=len(data))["whole"])
        assert raw.ask("upload_chunk", *[b"x"] * 5, sha256=sha256, off=0)["code"] == "bad_request"
    assert [p.read_bytes() for p in (home / "uploads").glob(f"*/{sha256}")] == [data]


def test_a_quick_line_gets_long_pieces(broker, tmp_path, monkeypatch):
    said, clip = Said(monkeypatch), large_clip(tmp_path, 40)
    monkeypatch.setattr(transfer, "QUICK_S", 60.0)  # whatever else this machine does
    with client(broker.connection, share_files=False) as it:
        assert isinstance(reconstruct(it, clip, tmp_path / "out"), JobDone)
    sizes = [size for _, size in said.of("upload_chunk")]
    assert sum(sizes) == clip.stat().st_size
    assert sizes[0] == CHUNK
    assert max(sizes) == MOST


def test_a_result_arrives_whole_in_long_pieces(broker, tmp_path, monkeypatch):
    class Long(Pace):
        def __init__(self, most):
            super().__init__(most)
            self.size = most

    monkeypatch.setattr(transfer, "Pace", Long)
    said = Said(monkeypatch)
    with client(broker.connection, share_files=False) as it:
        assert isinstance(reconstruct(it, clip_that(tmp_path, "work"), tmp_path / "out"), JobDone)
    assert max(frames for frames, _ in said.of("get")) == 2
    assert read_capture(tmp_path / "out")


def test_a_slow_line_keeps_short_ones(broker, tmp_path, monkeypatch):
    said, clip = Said(monkeypatch), large_clip(tmp_path, 20)
    monkeypatch.setattr(transfer, "QUICK_S", 0.0)
    with client(broker.connection, share_files=False) as it:
        assert isinstance(reconstruct(it, clip, tmp_path / "out"), JobDone)
    assert {frames for kind, frames, _ in said.pieces} == {1}
    assert max(size for _, _, size in said.pieces) == CHUNK


def test_a_server_that_knows_one_frame_a_message_gets_one(tmp_path, monkeypatch):
    """As those of before did, which refuse anything else."""
    monkeypatch.setattr(transfer_requests, "caps", lambda: messages.ENCODINGS)
    monkeypatch.setattr("backend.server.requests.caps", lambda: messages.ENCODINGS)
    monkeypatch.setattr(transfer, "QUICK_S", 60.0)
    said, clip = Said(monkeypatch), large_clip(tmp_path, 20)
    with server(tmp_path / "home") as old, client(old.connection, share_files=False) as it:
        assert isinstance(reconstruct(it, clip, tmp_path / "out"), JobDone)
    assert {frames for _, frames, _ in said.pieces} == {1}
    assert max(size for _, size in said.of("upload_chunk")) == CHUNK
    assert max(size for _, size in said.of("get")) <= framing.PIECE


def test_a_result_comes_in_as_few_frames_as_were_always_known(broker, tmp_path, home):
    clip = clip_that(tmp_path, "work")
    with client(broker.connection, share_files=False) as it:
        assert isinstance(reconstruct(it, clip, tmp_path / "out", JobSettings()), JobDone)
    with RawClient(broker.connection) as raw:
        job = raw.ask("list", first=0)["jobs"][0]["job"]
        rows = raw.ask("result_index", job=job, first=0)["files"]
        row = max(rows, key=lambda row: row["size"])
        truth = (home / "jobs" / job / "capture" / row["name"]).read_bytes()
        assert row["size"] > framing.PIECE
        get = lambda off, n: raw.ask("get", job=job, name=row["name"], off=off, n=n)["_"]  # noqa: E731
        assert get(0, framing.PIECE) == [truth[: framing.PIECE]]
        assert get(0, framing.PIECE + 3) == [truth[: framing.PIECE], truth[framing.PIECE :][:3]]
        assert get(len(truth) - 3, MOST) == [truth[-3:]]
        assert get(len(truth), MOST) == [b""]


def test_pieces_grow_while_they_are_quick_and_shrink_at_once(monkeypatch):
    pace, now = Pace(MOST), [0.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now[0])

    async def taking(seconds):
        now[0] += seconds

    def after(seconds):
        asyncio.run(pace.timed(taking(seconds)))
        return pace.size // CHUNK

    assert [after(s) for s in (0.1, 0.1, 0.1, 0.4, 0.1)] == [2, 4, 4, 1, 2]


def test_no_more_than_eight_requests_are_under_way_however_small():
    """A result of hundreds of small pictures must not ask for more at once than a server answers."""
    under_way, most = 0, 0

    async def move():
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return 1

    taken = []
    asyncio.run(windowed([(1, move)] * 50, taken.append))
    assert len(taken) == 50
    assert most == framing.CREDIT


def test_no_more_than_eight_chunks_are_under_way_whatever_their_size():
    sizes, under_way, most = [1, 1, 2, 2, 4, 4, 1, 4, 4, 1, 1, 12, 3], 0, 0

    async def move(size):
        nonlocal under_way, most
        under_way += size
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= size
        return size

    taken = []
    requests = [(size, lambda size=size: move(size)) for size in sizes]
    asyncio.run(windowed(requests, taken.append, most=8))
    assert taken == sizes
    assert most == 12, "one that is larger than all may be goes alone"
    asyncio.run(windowed(requests[:-2], taken.append, most=8))
