"""What hostile clients can do to a server that runs: nothing but lose their own connection; see docs/security.md."""

import contextlib
import dataclasses
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
import zmq

from backend.__main__ import main
from backend.server.keys import AuthorizedKeys, load_keys, new_client
from backend.server.limits import (
    BULK,
    BURST,
    CONNECTIONS,
    CONNECTIONS_OWNER,
    COST,
    FLIGHT_ALL,
    FLIGHT_OWNER,
    RATE,
    UNFINISHED,
    Limits,
)
from backend.server.refusal import Refusal
from backend.wire import JobSettings, LocaliseSettings, framing
from blender_addon.events import Connected
from blender_addon.link import open_dealer
from tests.chaos.pipeline import write_clip
from tests.chaos.processes import ROOT, server_process
from tests.serving import RawClient, client, ends, send, wait_for

MIB = 1024 * 1024
GROWTH_MOST = 64 * MIB
UNKNOWN = "does not know this computer's key"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00%s" + bytes(32)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_process(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def guest(server):
    """A paired client of another machine: it has a key, and means harm."""
    name = f"guest{time.monotonic_ns()}"
    yield new_client(server.home, name, server.connection.address)
    AuthorizedKeys(server.home).revoke(name)


@pytest.fixture
def calm(server):
    """A client that must be served throughout, and the server's memory, which must not grow."""
    with RawClient(server.connection) as other:
        before, most, waited, on = server.rss(), 0, 0.0, True

        def watch():
            nonlocal most, waited
            while on:
                began = time.monotonic()
                assert other.ask("ping")["t"] == "ping"
                waited = max(waited, time.monotonic() - began)
                most = max(most, server.rss() - before)
                time.sleep(0.05)

        thread = threading.Thread(target=watch)
        thread.start()
        yield
        time.sleep(0.3)
        on = False
        thread.join(40)
        print(f"grew by {most / MIB:.1f} MiB at most; a ping took {1000 * waited:.0f} ms at most")
        assert not thread.is_alive()
        assert server.alive
        assert most < GROWTH_MOST, f"the server grew by {most / MIB:.0f} MiB"
        assert waited < 5.0, f"another client waited {waited:.1f} s"


def line_to(server):
    """A TCP connection that says what it likes."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def says(line, data):
    """Send; False when the server hung up."""
    try:
        line.sendall(data)
    except OSError:
        return False
    return True


def hung_up(line, within_s=8.0):
    """Whether the server ends the connection."""
    line.settimeout(within_s)
    try:
        while line.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


# Without a key


def test_an_endless_message_in_plain_zeromq_is_not_taken(server, calm):
    """ZMTP with NULL security: greeting, READY, and then frames that all say that more follow."""
    ready = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    with line_to(server) as line:
        says(line, GREETING % b"NULL".ljust(20, b"\0") + ready)
        frame = b"\x03" + struct.pack(">Q", MIB) + bytes(MIB)
        sent = sum(says(line, frame) for _ in range(300))
        assert sent < 100, "the server goes on listening"
        assert hung_up(line)


@pytest.mark.parametrize("length", [MIB, 2**40, 2**63], ids=["1 MiB", "1 TiB", "more than there is"])
def test_an_endless_handshake_is_not_taken(server, calm, length):
    with line_to(server) as line:
        says(line, GREETING % b"CURVE".ljust(20, b"\0"))
        says(line, b"\x06" + struct.pack(">Q", length))
        sent = sum(says(line, bytes(MIB)) for _ in range(300))
        assert sent < 100
        assert hung_up(line)


@pytest.mark.slow
@pytest.mark.parametrize("greeting", [b"", GREETING % b"CURVE".ljust(20, b"\0")], ids=["silent", "greeted"])
def test_half_open_connections_are_ended_and_others_are_served(server, calm, greeting):
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(line_to(server)) for _ in range(300)]
        for line in lines:
            says(line, greeting)
        with RawClient(server.connection) as newcomer:
            assert newcomer.ask("ping")["t"] == "ping"
        assert all(map(hung_up, lines)), "HANDSHAKE_IVL ends them"


def test_more_connections_than_there_is_room_for_push_each_other_out(server, calm):
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS + 200):
            stack.enter_context(line_to(server))
        time.sleep(0.5)
        with RawClient(server.connection) as newcomer:
            assert newcomer.ask("ping")["t"] == "ping"


def test_garbage_on_the_port_is_ended(server, calm):
    for number in range(400):
        with line_to(server) as line:
            says(line, (b"GET / HTTP/1.1\r\n\r\n", os.urandom(300), b"\xff" * 64, b"\x16\x03\x01" * 30)[number % 4])
    with RawClient(server.connection) as newcomer:
        assert newcomer.ask("ping")["t"] == "ping"


def test_only_the_right_keys_open(server, calm):
    """As told by the socket's monitor, which is what the add-on tells the artist."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    right = server.connection
    for keys, event in (
        ({}, zmq.EVENT_HANDSHAKE_SUCCEEDED),
        ({"client_public_key": public, "client_secret_key": secret}, zmq.EVENT_HANDSHAKE_FAILED_AUTH),
        ({"server_public_key": public}, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL),
        ({"client_public_key": public}, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL),
    ):
        assert handshake(dataclasses.replace(right, **keys)) == event, keys


def handshake(connection):
    """How a handshake with these keys ends."""
    context = zmq.Context()
    try:
        dealer = context.socket(zmq.DEALER)
        dealer.curve_serverkey = connection.server_public_key.encode()
        dealer.curve_publickey = connection.client_public_key.encode()
        dealer.curve_secretkey = connection.client_secret_key.encode()
        monitor = dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        )
        dealer.connect(connection.address)
        assert monitor.poll(10_000), "the handshake does not end"
        return zmq.utils.monitor.parse_monitor_message(monitor.recv_multipart())["event"]
    finally:
        context.destroy(linger=0)


def test_wrong_keys_in_a_row_hold_nobody_up(server, calm):
    public, secret = (key.decode() for key in zmq.curve_keypair())
    wrong = dataclasses.replace(server.connection, client_public_key=public, client_secret_key=secret)
    context = zmq.Context()
    for _ in range(100):
        open_dealer(context, wrong)
    time.sleep(2.0)
    context.destroy(linger=0)


# With a key that was given to somebody who means harm


def test_a_frame_longer_than_any_request_ends_the_connection(server, guest, calm):
    with RawClient(guest) as raw:
        gone = raw.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        raw.socket.send_multipart([framing.MAGIC, b"{}", bytes(8 * MIB)])
        assert gone.poll(5000)
    with RawClient(guest) as raw:
        assert raw.ask("ping")["t"] == "ping"


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells how much of a message has come")
def test_a_message_without_an_end_ends_the_connection(server, guest):
    """ZeroMQ takes any number of frames for one message; what has come of it is bounded by cutting the line.

    Between two looks at the lines a fast client gets more through than elsewhere, so its bound is a wider one.
    """
    before, most = server.rss(), 0
    with RawClient(guest) as raw, RawClient(server.connection) as other:
        gone = raw.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        raw.socket.send_multipart([bytes(MIB)] * 1500, copy=False)
        deadline = time.monotonic() + 30
        while not gone.poll(5):
            most = max(most, server.rss() - before)
            assert time.monotonic() < deadline, "the server goes on listening"
        assert other.ask("ping")["t"] == "ping"
        raw.close()
    time.sleep(0.5)
    print(f"grew by {most / MIB:.0f} MiB, {(server.rss() - before) / MIB:.0f} remain")
    assert most < 8 * UNFINISHED
    assert server.rss() - before < GROWTH_MOST


def test_messages_of_many_frames_end_the_connection(server, guest, calm):
    with RawClient(guest) as raw:
        gone = raw.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        with contextlib.suppress(zmq.Again):
            for _ in range(20):
                raw.socket.send_multipart([framing.MAGIC, b"{}", *[bytes(MIB)] * 8], zmq.NOBLOCK)
        assert gone.poll(5000)


BREAKS = """
import sys, threading, time
from pathlib import Path
from backend.server.endpoint import Endpoint
from backend.server.keys import load_keys
from backend.server.private import make_safe
from backend.wire import Connection, framing
from tests.chaos.proxy import Proxy
from tests.serving import RawClient
home = make_safe(Path(sys.argv[1]))
keys = load_keys(home)
endpoint = Endpoint("127.0.0.1", 0, keys, home)
with Proxy(endpoint.port) as line:
    raw = RawClient(Connection(line.address, keys.server_public, keys.client_public, keys.client_secret), hello=False)
    first = threading.Thread(target=raw.socket.send_multipart, args=(framing.encode({"t": "ping", "id": 0}),))
    first.start()
    taken = 0
    while not taken:
        taken = len(endpoint.receive(0.1))
    first.join()
    for number in range(200):
        raw.socket.send_multipart(framing.encode({"t": "ping", "id": number}))
    time.sleep(1.0)
    line.cut()
    time.sleep(3.0)  # a heartbeat is due every 2 s
    while more := endpoint.receive(0.1):
        taken += len(more)
    print(taken, "taken")
    raw.close()
endpoint.close()
"""


@pytest.mark.slow
def test_a_line_that_breaks_while_messages_wait_does_not_end_the_server(tmp_path):
    """libzmq 4.3.5 aborts when a line breaks of which it has stopped reading: it must never stop."""
    command = [sys.executable, "-c", BREAKS, str(tmp_path / "home")]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (told.returncode, told.stdout) == (0, "201 taken\n"), told.stderr


def test_bad_messages_are_answered_one_by_one_and_the_connection_stays(server, guest, calm):
    bad = [
        [b""],
        [b"junk", b"{}"],
        [framing.MAGIC, b"\xff" * 300],
        [framing.MAGIC, b"[" * 30_000 + b"]" * 30_000],
        [framing.MAGIC, b'{"t":' * 9000 + b"1" + b"}" * 9000],
        [framing.MAGIC, b"{" + b",".join(b'"%d":1' % i for i in range(6500)) + b"}"],
        [framing.MAGIC, b'{"t": "ping", "id": ' + b"9" * 60_000 + b"}"],
        [framing.MAGIC, b'{"t": "ping", "id": 1e999}'],
        [framing.MAGIC, b" " * (framing.HEADER_MAX + 1)],
        [framing.MAGIC, b'{"t": "status", "id": 1, "job": "\\ud800"}'],
    ]
    with RawClient(guest) as raw:
        for number in range(3000):
            reply = raw.say(bad[number % len(bad)])
            assert reply["t"] == "error"
            assert reply["code"] in ("bad_magic", "bad_request", "unknown_type"), reply
        assert raw.ask("ping")["t"] == "ping"


def test_one_client_has_so_many_connections_and_no_more(server, guest, calm):
    context = zmq.Context()
    context.max_sockets = 4096
    dealers = [open_dealer(context, guest) for _ in range(CONNECTIONS_OWNER + 40)]
    answered = 0
    for dealer in dealers:
        if dealer.poll(5000, zmq.POLLOUT):
            dealer.send_multipart(framing.encode({"t": "ping", "id": 1}))
    time.sleep(2.0)
    for dealer in dealers:
        answered += bool(dealer.poll(0))
    context.destroy(linger=0)
    assert CONNECTIONS_OWNER * 0.9 < answered <= CONNECTIONS_OWNER


def test_a_flood_of_requests_is_refused_and_then_not_looked_at(server, guest, calm):
    submit = {"sha256": "0" * 64, "kind": "file", "name": "x.mp4", "size": 1, "settings": {"engine": "none"}}
    allowed, began = int(BURST / COST["submit"]), time.monotonic()
    with RawClient(guest) as raw:
        codes = [raw.ask("submit", **submit)["code"] for _ in range(allowed + 400)]
    assert codes[:allowed] == ["bad_settings"] * allowed
    if len(codes) * COST["submit"] < 1.1 * (BURST + RATE * (time.monotonic() - began)):
        pytest.skip("this machine is too busy to ask too often")
    assert "slow_down" in codes


@pytest.fixture(scope="module")
def done(server, tmp_path_factory):
    """A finished job of a paired client, and its connection."""
    owner = new_client(server.home, "owner", server.connection.address)
    with RawClient(owner) as raw:
        job = send(raw, write_clip(tmp_path_factory.mktemp("clip") / "0.mp4", 0, stage_s=0.0))["job"]
        events = ends(raw, job)
        assert events[-1]["kind"] == "done", events
    return owner, job


def test_many_connections_that_ask_and_never_read_hold_no_more_than_one(server, done, calm):
    owner, job = done
    context = zmq.Context()
    context.rcvhwm, context.rcvbuf, context.sndtimeo = 1, 4096, 10_000
    dealers = [open_dealer(context, owner) for _ in range(30)]
    for number in range(40):
        for dealer in dealers:
            with contextlib.suppress(zmq.Again):
                asked = {"t": "get", "job": job, "name": "shading.npy", "off": 0, "n": framing.CHUNK}
                hello = {"t": "hello", "ver_min": 2, "ver_max": 2, "client": "x", "caps": []}
                ask = {**(asked if number else hello), "id": number + 1}
                dealer.send_multipart(framing.encode(ask), 0 if number == 0 else zmq.NOBLOCK)
    time.sleep(2.0)
    context.destroy(linger=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"lens": {"focal_mm": 10**400}},
        {"lens": {"focal_mm": 1e308}},
        {"lens": {"k1": "0"}},
        {"lens": {"k1": True}},
        {"lens": []},
        {"clip": {"first_frame": 10**4000}},
        {"clip": {"last_frame": 2**63}},
        {"clip": {"long_side": 10**9}},
        {"clip": {"frame_step": 0}},
        {"clip": {"x" * 50_000: 1}},
        {"engine": "x" * 60_000},
        {"engine": "../../x"},
        {"engine": ["classical"]},
        {"engine_settings": {"max_features": {"a": [1]}}},
        {"engine_settings": {"max_features": -(10**18)}},
        {"unknown": {}},
        {"": ""},
    ],
    ids=lambda settings: str(settings)[:40],
)
def test_absurd_settings_are_refused_by_name(server, guest, settings):
    with RawClient(guest) as raw:
        for kind, fields in (
            ("submit", {"sha256": "0" * 64, "kind": "file", "name": "x.mp4", "size": 1}),
            ("estimate", {"width": 64, "height": 64, "frames": 10, "fps": 25.0}),
        ):
            reply = raw.ask(kind, settings=settings, **fields)
            assert (reply["t"], reply["code"]) == ("error", "bad_settings"), reply
            assert len(reply["message"]) < 300


# What a paired client reaches


def test_paths_of_a_client_elsewhere_are_never_opened(server, guest, tmp_path):
    """A pipe stands for the file: whoever opened it would wait for ever."""
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    settings = JobSettings().to_json()
    with RawClient(guest) as raw:
        for path in (str(pipe), "/etc/passwd", str(server.home / "keys.json"), "relative.mp4", ""):
            submit = {"sha256": "0" * 64, "kind": "file", "name": "x.mp4", "size": 1, "settings": settings}
            assert raw.ask("submit", **submit, path=path)["code"] == "not_same_host"
            assert raw.ask("probe", path=path)["code"] == "not_same_host"
            masks = {"masks_sha256": "1" * 64, "masks_size": 1, "masks_path": path}
            assert raw.ask("submit", **submit, **masks)["code"] in ("not_same_host", "no_upload")
        for nonce in ("0" * 64, "f" * 64):
            assert raw.ask("prove", nonce=nonce)["same_host"] is False


def test_a_client_reaches_only_its_own_jobs(server, guest, done):
    _, job = done
    with RawClient(guest) as raw:
        for kind, fields in (
            ("status", {}),
            ("events", {"since": 0}),
            ("result_index", {"first": 0}),
            ("get", {"name": "capture.json", "off": 0, "n": 10}),
            ("live", {"since": 0}),
            ("live_get", {"frame": 0}),
            ("cancel", {}),
            ("delete", {}),
        ):
            assert raw.ask(kind, job=job, **fields)["code"] == "no_such_job", kind
        assert raw.ask("list", first=0)["total"] == 0
        assert raw.ask("shutdown", how="now")["code"] == "forbidden"


def test_a_plate_is_localised_in_ones_own_captures_alone(server, guest, done, tmp_path):
    """Another's capture is reached neither by its id nor by a path, and the refusals do not tell that it is there."""
    _, job = done
    told = set()
    with RawClient(guest) as raw:
        clip = write_clip(tmp_path / "plate.mp4", 977)
        for reference in (job, "f" * 32, f"../{job}", str(server.home / "jobs" / job / "capture")):
            settings = JobSettings("localise", engine_settings=LocaliseSettings(reference=reference)).to_json()
            reply = send(raw, clip, settings=settings)
            assert reply["code"] == ("no_such_capture" if len(reference) == 32 else "bad_settings"), reference
            told |= {reply["message"]} if len(reference) == 32 else set()
        assert len(told) == 1
        assert raw.ask("list", first=0)["total"] == 0


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_in_the_folder_of_a_job_leads_nowhere(server, done):
    owner, job = done
    capture = server.home / "jobs" / job / "capture"
    with RawClient(owner) as raw:
        there = {row["name"]: row["size"] for row in raw.ask("result_index", job=job, first=0)["files"]}
        assert "shading.npy" in there
        kept = capture / "kept"
        (capture / "shading.npy").rename(kept)
        try:
            (capture / "shading.npy").symlink_to(server.home / "keys.json")
            reply = raw.ask("get", job=job, name="shading.npy", off=0, n=4096)
            assert (reply["t"], reply.get("code")) == ("error", "no_such_file")
            (capture / "shading.npy").unlink()
            os.mkfifo(capture / "shading.npy")
            reply = raw.ask("get", job=job, name="shading.npy", off=0, n=4096)
            assert (reply["t"], reply.get("code")) == ("error", "no_such_file")
        finally:
            (capture / "shading.npy").unlink()
            kept.rename(capture / "shading.npy")
        assert raw.ask("get", job=job, name="shading.npy", off=0, n=4096)["t"] == "get"


def test_a_revoked_client_is_thrown_out_while_it_is_connected(server, tmp_path, monkeypatch, capsys):
    """Its add-on says why; its finished work is not touched."""
    monkeypatch.setenv("KINORA_HOME", str(server.home))
    assert main(["keys", "new", "anna", "--host", "127.0.0.1"]) == 0
    code = capsys.readouterr().out
    with (
        client(type(server.connection).from_code(code), share_files=False) as anna,
        RawClient(server.connection) as other,
    ):
        told = []
        wait_for(lambda: told.extend(anna.drain()) or any(isinstance(e, Connected) for e in told))
        assert main(["keys", "revoke", "anna"]) == 0
        began = time.monotonic()
        wait_for(lambda: told.extend(anna.drain()) or any(UNKNOWN in str(vars(e)) for e in told))
        assert time.monotonic() - began < 10
        assert other.ask("ping")["t"] == "ping"


# What a listener on the line hears


class Tap:
    """Passes bytes between clients and a server, and keeps all of them."""

    def __init__(self, port):
        self._port, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source, target):
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                self.heard += block
                target.sendall(block)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()


def test_nothing_of_what_is_said_is_heard_on_the_line(server, done, tmp_path):
    owner, job = done
    tap = Tap(server.port)
    through = dataclasses.replace(owner, address=tap.address)
    clip = write_clip(tmp_path / "very-secret-name.mp4", 1, stage_s=0.0)
    with RawClient(through) as raw:
        send(raw, clip)
        result = raw.ask("get", job=job, name="capture.json", off=0, n=framing.CHUNK)["_"][0]
        raw.ask("events", job=job, since=0)
    tap.close()
    heard = bytes(tap.heard)
    assert len(heard) > len(result) + clip.stat().st_size, "the line was listened to"
    keys = load_keys(server.home)
    for secret in (
        clip.read_bytes(),
        b"very-secret-name",
        result[:64],
        result[-64:],
        framing.MAGIC,
        b"upload_chunk",
        job.encode(),
        *(key.encode() for key in dataclasses.astuple(keys)),
        owner.client_public_key.encode(),
    ):
        assert secret
        assert secret not in heard


# The accounts


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_client_is_refused_beyond_its_rate_and_forgiven_after_a_pause():
    clock = Clock()
    limits = Limits(clock)
    for _ in range(int(BURST) - 1):
        assert limits.heard("a")
        limits.check("a", "ping")
    limits.heard("a")
    with pytest.raises(Refusal, match="too often"):
        limits.check("a", "ping")
    assert limits.heard("b")
    limits.check("b", "ping")
    clock.now += 1.0
    for _ in range(int(RATE) - 10):
        assert limits.heard("a")
        limits.check("a", "ping")


def test_a_client_that_goes_on_is_not_looked_at_any_more():
    limits = Limits(Clock())
    answers = [limits.heard("a") for _ in range(int(BURST) + 5000)]
    assert answers[int(BURST)]
    assert not answers[-1]


class Flight:
    done = False


def test_bytes_on_their_way_are_bounded_for_one_and_for_all():
    limits, flights = Limits(Clock()), []

    def send(owner):
        limits.check(owner, "get")
        flights.append(Flight())
        limits.sent(owner, MIB, flights[-1])

    for _ in range(FLIGHT_OWNER // MIB):
        send("a")
    for kind in BULK:
        with pytest.raises(Refusal, match="than has been read"):
            limits.check("a", kind)
    limits.check("a", "cancel")
    for n in range(FLIGHT_ALL // MIB - FLIGHT_OWNER // MIB):
        send(f"other {n % 12}")
    with pytest.raises(Refusal, match="than has been read"):
        send("last")
    for flight in flights:
        flight.done = True
    send("a")
    send("last")


def test_who_was_quiet_for_long_costs_no_memory():
    clock = Clock()
    limits = Limits(clock)
    for n in range(1000):
        limits.heard(str(n))
    flight = Flight()
    limits.sent("7", MIB, flight)
    clock.now += 100
    limits.tidy()
    assert set(limits._accounts) == {"7"}
    flight.done = True
    limits.tidy()
    assert not limits._accounts
