"""The server seen from a socket: who gets in, what is answered, and which files it gives and takes."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import zlib

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.server.keys import new_client
from backend.wire import UserError, bundle, framing
from tests.serving import SETTINGS, RawClient, clip_that, ends, send, server, wait_for


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def raw(broker):
    with RawClient(broker.connection) as it:
        yield it


def prove(raw):
    with open(raw.hello["proof"], encoding="ascii") as file:
        return raw.ask("prove", nonce=file.read())["same_host"]


# Who gets in


def can_enter(connection):
    """Whether a client with these keys gets any answer."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    if connection.client_secret_key:
        socket.curve_publickey = connection.client_public_key.encode()
        socket.curve_secretkey = connection.client_secret_key.encode()
        socket.curve_serverkey = connection.server_public_key.encode()
    socket.sndtimeo = 1000
    socket.connect(connection.address)
    try:
        socket.send_multipart(framing.encode({"t": "ping", "id": 1}))
        return bool(socket.poll(1000))
    except zmq.Again:  # refused before it could say a word
        return False
    finally:
        context.destroy(linger=0)


def other_keys():
    return [key.decode() for key in zmq.curve_keypair()]


def test_the_key_of_the_connection_file_opens(broker):
    assert can_enter(broker.connection)


@pytest.mark.slow
def test_no_other_key_opens_nor_none(broker):
    public, secret = other_keys()
    for change in (
        {"client_public_key": public, "client_secret_key": secret},
        {"server_public_key": public},
        {"client_secret_key": ""},
    ):
        assert not can_enter(dataclasses.replace(broker.connection, **change)), change


def test_a_new_client_enters_at_once_and_sees_only_its_own_jobs(broker, raw, tmp_path):
    job = send(raw, clip_that(tmp_path, "refuse"))["job"]
    with RawClient(new_client(broker._home, "guest", broker.connection.address)) as guest:
        assert guest.hello["t"] == "hello"
        assert job in {row["job"] for row in raw.ask("list", first=0)["jobs"]}
        assert guest.ask("list", first=0)["jobs"] == []
        for kind, fields in (("status", {}), ("events", {"since": 0}), ("cancel", {}), ("delete", {})):
            assert guest.ask(kind, job=job, **fields)["code"] == "no_such_job"
        assert guest.ask("shutdown", how="now")["code"] == "forbidden"
    ends(raw, job)


def test_the_server_imports_nothing_that_computes_or_decodes():
    code = "import sys, backend.server.broker; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "cv2", "av", "imageio", "pycolmap", "backend.clip", "backend.pipeline"} & set(told.split())


def test_the_keys_outlive_the_server(tmp_path):
    with server(tmp_path / "home") as first:
        pass
    with server(tmp_path / "home") as second:
        assert second.connection.server_public_key == first.connection.server_public_key
        assert second.connection.client_public_key == first.connection.client_public_key
        assert second.connection.instance != first.connection.instance
    assert not (tmp_path / "home" / "connection.json").exists()


@pytest.mark.slow
def test_a_second_server_is_refused_and_the_first_goes_on(broker, raw):
    with pytest.raises(UserError, match="runs already"), server(broker._home):
        pass
    assert raw.ask("ping")["t"] == "ping"


# What is answered


def test_hello_settles_the_version(broker):
    with RawClient(broker.connection, hello=False) as raw:
        assert raw.ask("list", first=0)["code"] == "no_hello"
        newer = raw.ask("hello", ver_min=3, ver_max=9, client="newer", caps=[])
        assert (newer["t"], newer["code"]) == ("error", "version")
        assert raw.ask("hello", ver_min=1, ver_max=9, client="both", caps=[])["ver"] == 2


def test_what_is_not_of_the_protocol_is_refused_and_the_connection_stays(raw):
    for parts in (
        [b""],
        [b"junk", b"{}"],
        [framing.MAGIC],
        [framing.MAGIC, b"{}"],
        [framing.MAGIC, b'{"t": "ping", "id": NaN}'],
        [framing.MAGIC, b'{"t": "ping"}'],
        [framing.MAGIC, b'{"t": "ping", "id": 1, "extra": 2}'],
        [framing.MAGIC, b'{"t": ["ping"], "id": 1}'],
        [framing.MAGIC, b'{"t": "_answer", "id": 1}'],
        [framing.MAGIC, b'{"t": "ping", "id": 1}', *[b""] * 7],
    ):
        assert raw.say(parts)["t"] == "error", parts
    assert raw.ask("ping")["t"] == "ping"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.booleans())
def test_any_message_is_answered_and_the_server_lives(raw, parts, with_magic):
    assert raw.say([framing.MAGIC, *parts] if with_magic else parts)["t"] == "error"


def test_a_frame_beyond_the_limit_costs_its_sender_the_connection_and_nobody_else(broker, raw):
    with RawClient(broker.connection) as rude:
        rude.socket.send_multipart([framing.MAGIC, b"{}", bytes(framing.FRAME_MAX + 10_000)])
        assert not rude.socket.poll(500)
    assert raw.ask("ping")["t"] == "ping"


def test_settings_are_checked_by_name(raw):
    for bad in ({"engine": "magic"}, {"clip": {"long_side": 1}}, {"clip": {"first_frame": "0"}}, {"other": {}}):
        reply = raw.ask("submit", sha256="0" * 64, kind="file", name="a.mp4", size=1, settings=bad)
        assert (reply["t"], reply["code"]) == ("error", "bad_settings")


# Files


def test_a_path_is_only_taken_after_the_proof(raw, tmp_path):
    clip = clip_that(tmp_path, "refuse")
    fields = {"sha256": "1" * 64, "kind": "file", "name": "a.mp4", "settings": SETTINGS}
    size = clip.stat().st_size
    assert raw.ask("submit", path=str(clip), size=size, **fields)["code"] == "not_same_host"
    assert raw.ask("prove", nonce="0" * 64)["same_host"] is False
    assert prove_again_fails(raw)
    raw.hello = raw.ask("hello", ver_min=2, ver_max=2, client="test", caps=[])
    assert prove(raw) is True
    seen = bundle.sample(clip)
    other = clip_that(tmp_path, "refuse")  # as large, another content
    assert other.stat().st_size == size
    for path, wrong, sample in (
        (clip, size + 1, seen),
        (f"{clip}x", size, seen),
        ("relative.mp4", size, seen),
        (tmp_path, size, seen),
        (other, size, seen),
        (clip, size, "0" * 64),
    ):
        assert raw.ask("submit", path=str(path), size=wrong, sample=sample, **fields)["code"] == "no_such_file"
    assert raw.ask("submit", path=str(clip), size=size, **fields)["code"] == "no_such_file"
    assert raw.ask("submit", path=str(clip), size=size, sample=seen, **fields)["t"] == "submit"


def prove_again_fails(raw):
    """One wrong nonce and the proof is gone."""
    return not os.path.exists(raw.hello["proof"])


@pytest.mark.skipif(sys.platform == "win32", reason="the data folder is the user's own there")
def test_the_proof_is_for_its_owner_alone(raw):
    assert os.stat(raw.hello["proof"]).st_mode & 0o077 == 0


def test_an_upload_goes_on_where_it_was_and_is_kept_by_its_content(broker, raw):
    data = os.urandom(2_500_000)
    sha256 = hashlib.sha256(data).hexdigest()
    chunk = lambda at: data[at : at + framing.CHUNK]  # noqa: E731
    put = lambda client, at: client.ask("upload_chunk", chunk(at), sha256=sha256, off=at, crc=zlib.crc32(chunk(at)))  # noqa: E731
    assert put(raw, 0)["code"] == "not_open"
    assert raw.ask("upload_open", sha256=sha256, size=len(data))["have"] == 0
    assert put(raw, 0)["have"] == framing.CHUNK
    assert put(raw, 0)["have"] == framing.CHUNK, "sent twice, kept once"
    assert put(raw, 2 * framing.CHUNK)["code"] == "bad_offset"
    with RawClient(broker.connection) as again:
        have = again.ask("upload_open", sha256=sha256, size=len(data))["have"]
        assert have == framing.CHUNK
        put(again, have)
        assert put(again, 2 * framing.CHUNK)["have"] == len(data)
    whole = lambda: raw.ask("upload_open", sha256=sha256, size=len(data))["whole"]  # noqa: E731
    wait_for(whole)
    assert [p.read_bytes() for p in (broker._home / "uploads").glob(f"*/{sha256}")] == [data]


def test_a_damaged_upload_never_gets_a_name(broker, raw):
    sha256 = hashlib.sha256(b"what was meant").hexdigest()
    raw.ask("upload_open", sha256=sha256, size=5)
    assert raw.ask("upload_chunk", b"wrong", sha256=sha256, off=0, crc=0)["code"] == "bad_chunk"
    assert raw.ask("upload_chunk", b"wrong", sha256=sha256, off=0, crc=zlib.crc32(b"wrong"))["have"] == 5
    refused = lambda: raw.ask("upload_open", sha256=sha256, size=5).get("code")  # noqa: E731
    wait_for(lambda: refused() == "bad_hash")
    assert list((broker._home / "uploads").glob(f"*/{sha256}*")) == []
    reply = raw.ask("submit", sha256=sha256, kind="file", name="a.mp4", size=5, settings=SETTINGS)
    assert reply["code"] == "no_upload"


def test_results_are_pulled_by_name_and_nothing_else_can_be(raw, broker, tmp_path):
    job = send(raw, clip_that(tmp_path, "work"))["job"]
    assert raw.ask("result_index", job=job, first=0)["code"] == "not_done"
    events = ends(raw, job)
    assert [e["kind"] for e in events] == ["queued", "started", "stage", "log", "stage", "done"], events[-1]
    index = raw.ask("result_index", job=job, first=0)
    assert "path" not in index, "no path without the proof"
    sizes = {row["name"]: row["size"] for row in index["files"]}
    folder = broker._home / "jobs" / job / "capture"
    assert {r["name"]: r["sha256"] for r in index["files"]} == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()
    }
    assert sizes == {p.name: p.stat().st_size for p in folder.iterdir()}
    assert {"capture.json", "depth.npy", "ballast.npy"} <= set(sizes)
    reply = raw.ask("get", job=job, name="ballast.npy", off=framing.CHUNK, n=framing.CHUNK)
    assert reply["_"][0] == (folder / "ballast.npy").read_bytes()[framing.CHUNK : 2 * framing.CHUNK]
    (folder / "secret.txt").write_text("not of the result")
    for name in ("secret.txt", "nosuch.npy", "log.txt", "jobs.db"):
        assert raw.ask("get", job=job, name=name, off=0, n=1)["code"] == "no_such_file"
    for name in ("../log.txt", "../../../jobs.db", "/etc/passwd", "..", "a\0b"):
        assert raw.ask("get", job=job, name=name, off=0, n=1)["code"] == "bad_request"
    assert raw.ask("get", job=job, name="ballast.npy", off=10**9, n=1)["code"] == "bad_offset"
