"""Clips and results on their way: whatever breaks, both arrive whole, are sent once, and go to nobody else."""

import hashlib
import json
import os
import resource
import threading
import time

import pytest

from backend.server import uploads as uploads_module
from backend.server.keys import new_client
from backend.server.refusal import Refusal
from backend.server.uploads import Uploads
from backend.wire import JobSettings, compact, framing, read_capture
from blender_addon import transfer
from blender_addon.client import JobDone, JobFailed, JobLog, JobProgress, JobQueued
from blender_addon.partial import Partial
from tests.serving import RawClient, client, clip_that, collect, end_of, reconstruct, server, wait_for

SETTINGS = JobSettings()
CHUNK = framing.CHUNK


def large_clip(folder, chunks=5, word="work"):
    """A clip of so many chunks and a bit, of new content."""
    path = clip_that(folder, word)
    with open(path, "ab") as file:
        file.write(os.urandom(chunks * CHUNK))
    return path


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def put(raw, data, first, last):
    """Send the chunks from `first` to before `last`."""
    sha256 = hashlib.sha256(data).hexdigest()
    for at in range(first * CHUNK, min(last * CHUNK, len(data)), CHUNK):
        raw.ask("upload_chunk", data[at : at + CHUNK], sha256=sha256, off=at)


def opened(raw, data):
    return raw.ask("upload_open", sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def stored(home, sha256):
    return list((home / "uploads").glob(f"*/{sha256}"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("kinora") / "home"


@pytest.fixture(scope="module")
def broker(home):
    with server(home) as it:
        yield it


@pytest.fixture
def far(broker):
    with client(broker.connection, share_files=False) as it:
        yield it


# Clips


def test_an_upload_outlives_the_server(tmp_path):
    data = os.urandom(3 * CHUNK + 5)
    with server(tmp_path / "home") as first, RawClient(first.connection) as raw:
        assert (opened(raw, data)["have"], opened(raw, data)["whole"]) == (0, False)
        put(raw, data, 0, 2)
    with server(tmp_path / "home") as second, RawClient(second.connection) as raw:
        assert opened(raw, data)["have"] == 2 * CHUNK
        put(raw, data, 2, 4)
        wait_for(lambda: opened(raw, data)["whole"])
    assert [p.read_bytes() for p in stored(tmp_path / "home", hashlib.sha256(data).hexdigest())] == [data]


def test_a_part_that_was_spoilt_meanwhile_is_sent_anew(tmp_path):
    """As a machine that lost its power may leave it."""
    clip, home = large_clip(tmp_path), tmp_path / "home"
    with server(home) as first, RawClient(first.connection) as raw:
        opened(raw, clip.read_bytes())
        put(raw, clip.read_bytes(), 0, 3)
    with open(next((home / "uploads").glob(f"*/{sha256_of(clip)}.part")), "r+b") as file:
        file.seek(CHUNK)
        file.write(b"not what was sent")
    with server(home) as second, client(second.connection, share_files=False) as it:
        assert isinstance(reconstruct(it, clip, tmp_path / "out"), JobDone)
    assert [sha256_of(p) for p in stored(home, sha256_of(clip))] == [sha256_of(clip)]


def test_the_same_clip_is_sent_once(far, tmp_path, monkeypatch):
    clip, sent = large_clip(tmp_path), []
    chunks = transfer._chunks
    monkeypatch.setattr(transfer, "_chunks", lambda *a: (sent.append(piece[0]) or piece for piece in chunks(*a)))
    assert isinstance(reconstruct(far, clip, tmp_path / "one"), JobDone)
    assert sum(sent) == clip.stat().st_size
    other = JobSettings.from_json({**SETTINGS.to_json(), "lens": {**SETTINGS.to_json()["lens"], "focal_mm": 31.0}})
    assert isinstance(reconstruct(far, clip, tmp_path / "two", other), JobDone)
    assert sum(sent) == clip.stat().st_size


def test_to_know_a_hash_is_not_to_have_the_clip(home, broker):
    data = os.urandom(CHUNK + 7)
    with (
        RawClient(broker.connection) as mine,
        RawClient(new_client(home, "theirs", broker.connection.address)) as theirs,
    ):
        opened(mine, data)
        put(mine, data, 0, 2)
        wait_for(lambda: opened(mine, data)["whole"])
        sha256 = hashlib.sha256(data).hexdigest()
        fields = {"sha256": sha256, "kind": "file", "name": "a.mp4", "size": len(data), "settings": SETTINGS.to_json()}
        assert theirs.ask("submit", **fields)["code"] == "no_upload"
        assert opened(theirs, data)["have"] == 0
        put(theirs, data, 0, 2)
        wait_for(lambda: opened(theirs, data)["whole"])
    files = stored(home, sha256)
    assert len(files) == 2
    assert files[0].samefile(files[1]), "both sent it all: on the disk it is kept once"


def test_the_server_answers_while_it_reads_what_it_has(tmp_path):
    """A part of an earlier server is hashed beside the loop."""
    size = 512 * 2**20
    with server(tmp_path / "home") as first, RawClient(first.connection) as raw:
        raw.ask("upload_open", sha256="5" * 64, size=size)
    part = next((tmp_path / "home" / "uploads").glob("*/*.part"))
    os.truncate(part, size - 1)
    with server(tmp_path / "home") as second, RawClient(second.connection) as raw:
        assert raw.ask("upload_open", sha256="5" * 64, size=size)["have"] == size - 1
        waits = []
        for _ in range(20):
            began = time.monotonic()
            raw.ask("ping")
            waits.append(time.monotonic() - began)
        assert sorted(waits)[10] < 0.1


def test_a_clip_that_changes_while_it_is_sent_is_refused_in_words(far, tmp_path, monkeypatch):
    clip = large_clip(tmp_path)
    chunks = transfer._chunks

    def changing(link, footage, path, have):
        with open(clip, "r+b") as file:
            file.seek(2 * CHUNK)
            file.write(b"another picture")
        return chunks(link, footage, path, have)

    monkeypatch.setattr(transfer, "_chunks", changing)
    failed = reconstruct(far, clip, tmp_path / "out")
    assert isinstance(failed, JobFailed)
    assert "changed while it was sent" in failed.message


def test_without_room_the_sender_is_told_and_goes_on_by_itself(broker, far, tmp_path, monkeypatch):
    """Files may grow to 3 MB only, as on a full disk; others are answered meanwhile; then there is room again."""
    monkeypatch.setattr(transfer, "ROOM_S", 0.3)
    clip = large_clip(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, before[1]))
    try:
        ticket = far.submit(clip, SETTINGS, tmp_path / "out")
        told = lambda events: [e for e in events if isinstance(e, JobLog) and "no room" in e.text]  # noqa: E731
        events = collect(far, told)
        with RawClient(broker.connection) as other:
            assert other.ask("list", first=0)["t"] == "list"
        time.sleep(1)
        events += far.drain()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(told(events)) == 1, "once, not at every try"
    assert isinstance(end_of(far, ticket), JobDone)


def test_an_owner_has_so_many_parts_and_so_much_room(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads_module, "KEEP_FREE", 0)
    monkeypatch.setattr(uploads_module, "PARTS_MAX", 3)
    monkeypatch.setattr(uploads_module, "OWNER_MAX", 1000)
    in_use = set()
    store = Uploads(tmp_path, lambda: in_use)
    hashes = [f"{i:064x}" for i in range(5)]
    for sha256 in hashes[:3]:
        store.open("me", sha256, 10)
    with pytest.raises(Refusal, match="under way"):
        store.open("me", hashes[3], 10)
    assert store.open("you", hashes[3], 10) == (0, False)
    old = next(tmp_path.glob(f"*/{hashes[0]}.part"))
    os.utime(old, (time.time() - 1000,) * 2)
    store.open("me", hashes[3], 10)
    assert not old.exists(), "the one that nobody went on with made way"
    for i, content in enumerate((b"a" * 400, b"b" * 400)):
        sha256 = hashlib.sha256(content).hexdigest()
        store.open("them", sha256, 400)
        store.add("them", sha256, 0, [content])
        wait_for(lambda sha256=sha256: store.open("them", sha256, 400)[1])
        os.utime(store.path("them", sha256), (1000 + i,) * 2)
        in_use.add(str(store.path("them", sha256)))
    with pytest.raises(Refusal) as refused:
        store.open("them", hashes[4], 400)
    assert refused.value.code == "quota"
    in_use.clear()
    store.open("them", hashes[4], 400)
    assert store.path("them", hashlib.sha256(b"a" * 400).hexdigest()) is None, "what was used longest ago made way"
    assert store.path("them", hashlib.sha256(b"b" * 400).hexdigest()) is not None
    store.close()


def test_parts_that_nobody_goes_on_with_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads_module, "KEEP_FREE", 0)
    store = Uploads(tmp_path)
    for sha256 in ("1" * 64, "2" * 64):
        store.open("me", sha256, 10)
    os.utime(next(tmp_path.glob(f"*/{'1' * 64}.part")), (time.time() - uploads_module.PART_KEEP_S - 5,) * 2)
    store.forget_before(time.time() - 14 * 24 * 3600)
    assert [p.name for p in tmp_path.rglob("*.part")] == [f"{'2' * 64}.part"]
    store.close()


# Results


class Gets:
    """Counts the bytes of results that arrive."""

    def __init__(self, monkeypatch):
        self.bytes, append = 0, Partial.append

        def counted(partial, row, data):
            append(partial, row, data)
            self.bytes += len(data)

        monkeypatch.setattr(Partial, "append", counted)


class Pause:
    """Holds a fetch up once so many pieces have arrived, until `go`."""

    def __init__(self, monkeypatch, pieces):
        self.reached, self.go, append = threading.Event(), threading.Event(), Partial.append
        count = 0

        def slowly(partial, row, data):
            nonlocal count
            append(partial, row, data)
            count += 1
            if count == pieces:
                self.reached.set()
                self.go.wait(20)

        monkeypatch.setattr(Partial, "append", slowly)


def partials(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def result_of(home, events):
    """The server's folder of the job that these events tell of."""
    job = next(e.job for e in events if isinstance(e, JobQueued))
    return home / "jobs" / job / "capture"


def test_a_fetch_goes_on_where_an_earlier_blender_left_it(broker, tmp_path, monkeypatch):
    """Blender quits in the middle; the next one fetches the rest, and nothing twice."""
    clip, out, gets = clip_that(tmp_path / "clips", "work"), tmp_path / "place" / "out", Gets(monkeypatch)
    with monkeypatch.context() as patches, client(broker.connection, share_files=False) as first:
        pause = Pause(patches, 2)
        first.submit(clip, SETTINGS, out)
        assert pause.reached.wait(30)
        threading.Timer(0.3, pause.go.set).start()
        first.stop()
    assert not out.exists(), "nothing under the final name before all of it is there"
    kept = partials(tmp_path / "place")
    assert len(kept) == 2
    there = sum(p.stat().st_size for p in (tmp_path / "place" / kept[0]).iterdir())
    assert there > CHUNK
    assert gets.bytes == there
    gets.bytes = 0
    with client(broker.connection, share_files=False) as second:
        ticket = second.submit(clip, SETTINGS, out)
        events = collect(second, lambda events: any(isinstance(e, JobDone | JobFailed) for e in events))
    assert isinstance(events[-1], JobDone), (events[-1], ticket)
    whole = sum(p.stat().st_size for p in result_of(broker._home, events).iterdir())
    assert gets.bytes == whole - there
    moved = [e for e in events if isinstance(e, JobProgress) and e.stage == "Fetching the result"]
    assert all(e.done_bytes >= there and e.total_bytes == whole for e in moved), "progress goes on as well"
    assert partials(tmp_path / "place") == []
    assert read_capture(out)


def test_bytes_that_were_spoilt_meanwhile_are_fetched_again(home, broker, tmp_path, monkeypatch):
    clip, out = clip_that(tmp_path / "clips", "work"), tmp_path / "place" / "out"
    with monkeypatch.context() as patches, client(broker.connection, share_files=False) as first:
        pause = Pause(patches, 1)
        first.submit(clip, SETTINGS, out)
        assert pause.reached.wait(30)
        threading.Timer(0.3, pause.go.set).start()
        first.stop()
    ballast = tmp_path / "place" / partials(tmp_path / "place")[0] / "ballast.npy"
    with open(ballast, "r+b") as file:
        file.write(b"spoilt")
    with client(broker.connection, share_files=False) as second:
        second.submit(clip, SETTINGS, out)
        events = collect(second, lambda events: any(isinstance(e, JobDone | JobFailed) for e in events))
    assert isinstance(events[-1], JobDone), events[-1]
    assert (out / "ballast.npy").read_bytes() == (result_of(home, events) / "ballast.npy").read_bytes()


def test_a_result_that_is_damaged_at_the_server_never_gets_a_name(home, far, tmp_path):
    clip = clip_that(tmp_path / "clips", "work")
    far.submit(clip, SETTINGS, tmp_path / "one")
    events = collect(far, lambda events: any(isinstance(e, JobDone) for e in events))
    with open(result_of(home, events) / "ballast.npy", "r+b") as file:
        file.write(b"spoilt")
    failed = reconstruct(far, clip, tmp_path / "place" / "two")
    assert "arrived damaged" in failed.message
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.slow
def test_a_fetch_outlives_the_server(tmp_path, monkeypatch):
    clip, out, gets = clip_that(tmp_path / "clips", "work"), tmp_path / "place" / "out", Gets(monkeypatch)
    with server(tmp_path / "home") as first:
        pause = Pause(monkeypatch, 2)
        context = client(first.connection, share_files=False)
        it = context.__enter__()
        ticket = it.submit(clip, SETTINGS, out)
        assert pause.reached.wait(30)
    with server(tmp_path / "home", port=first.port):
        pause.go.set()
        assert isinstance(end_of(it, ticket), JobDone)
        context.__exit__(None, None, None)
    whole = sum(p.stat().st_size for p in next((tmp_path / "home" / "jobs").glob("*/capture")).iterdir())
    assert gets.bytes < whole + 2 * framing.CREDIT * CHUNK
    assert read_capture(out)


def test_who_cancels_a_fetch_keeps_nothing_of_it(far, tmp_path, monkeypatch):
    pause = Pause(monkeypatch, 3)
    ticket = far.submit(clip_that(tmp_path / "clips", "work"), SETTINGS, tmp_path / "place" / "out")
    assert pause.reached.wait(30)
    far.cancel(ticket)
    pause.go.set()
    end_of(far, ticket)
    wait_for(lambda: list((tmp_path / "place").iterdir()) == [])


def test_what_is_left_of_another_result_is_removed_and_one_under_way_is_not_touched(tmp_path):
    one = Partial(tmp_path / "out", "one", [])
    two = Partial(tmp_path / "out", "two", [])
    assert one.place.is_dir(), "somebody fills it"
    with pytest.raises(Exception, match="Another Blender"):
        Partial(tmp_path / "out", "one", [])
    one.close(keep=True)
    two.close(keep=True)
    three = Partial(tmp_path / "out", "three", [])
    three.close(keep=False)
    assert list(tmp_path.iterdir()) == []


# The compact encoding


@pytest.mark.parametrize("codec", compact.codecs())
def test_a_result_comes_compact_when_the_client_wants_it_so(home, broker, tmp_path, monkeypatch, codec):
    monkeypatch.setattr(compact, "codecs", lambda: (codec,))  # also of the server, which is in this process
    clip, gets = clip_that(tmp_path / "clips", "work"), Gets(monkeypatch)
    with client(broker.connection, share_files=False, encoding="compact") as it:
        it.submit(clip, SETTINGS, tmp_path / "out")
        events = collect(it, lambda events: any(isinstance(e, JobDone | JobFailed) for e in events))
        assert isinstance(events[-1], JobDone), events[-1]
        packed = result_of(home, events).parent / "compact" / f"{codec}.kc"
        assert gets.bytes == packed.stat().st_size
        when = packed.stat().st_mtime_ns
        assert isinstance(reconstruct(it, clip, tmp_path / "again"), JobDone)
    assert packed.stat().st_mtime_ns == when, "packed once"
    exact, after = read_capture(result_of(home, events)), read_capture(tmp_path / "out")
    error = json.loads((tmp_path / "out" / "capture.json").read_text())["compact"]["depth_max_relative_error"]
    assert 0 < error < 1.2e-4
    known = exact.depth > 0
    assert abs(after.depth[known] / exact.depth[known].astype(float) - 1).max() <= error * 1.05
    assert (after.rgb == exact.rgb).all()
    assert after.clip.source == str(clip)
    assert partials(tmp_path) == []


def test_a_result_that_cannot_be_packed_comes_as_it_is(home, broker, tmp_path):
    clip = clip_that(tmp_path / "clips", "work")
    with client(broker.connection, share_files=False, encoding="compact") as it:
        it.submit(clip, SETTINGS, tmp_path / "one")
        events = collect(it, lambda events: any(isinstance(e, JobDone) for e in events))
        folder = result_of(home, events).parent / "compact"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("in the way")
        ticket = it.submit(clip, SETTINGS, tmp_path / "two")
        events = collect(it, lambda events: any(isinstance(e, JobDone | JobFailed) for e in events))
    assert isinstance(events[-1], JobDone), (events[-1], ticket)
    assert any("fetched as it is" in e.text for e in events if isinstance(e, JobLog))
    assert "compact" not in json.loads((tmp_path / "two" / "capture.json").read_text())


# The same disk


def test_a_folder_of_the_same_path_on_another_disk_is_not_taken_for_the_result(tmp_path):
    rows = [transfer.Row("capture.json", 2, hashlib.sha256(b"{}").hexdigest()), transfer.Row("a.npy", 3)]
    (tmp_path / "a.npy").write_bytes(b"abc")
    for content, seen in ((b"{}", True), (b"[]", False), (b"{ }", False)):
        (tmp_path / "capture.json").write_bytes(content)
        assert transfer._is_result(tmp_path, rows) is seen
    assert not transfer._is_result(tmp_path / "nowhere", rows)
