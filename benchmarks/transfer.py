"""How fast clips and results move, against plain sockets and files: `python benchmarks/transfer.py --help`.

Everything runs on this machine in one go and is timed in turns, so that what else goes on here hits all alike: shares
are those within a turn, and of each figure the median of the turns counts. The server is a real process, the client is
the add-on's own code. The result that is packed has the colours of the example clip (benchmarks/demo_clip) and the true
depth of its scene with 0.15 % of noise, as from a measurement.

An upload is timed from the client's question for it: reading the clip, cipher, wire, and the server's writing and
hashing, which the same cores do; not the client's own hash before. The plain socket memory to memory does none of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import zmq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.blender_import import synthetic_capture  # noqa: E402

MB = 1e6
BLOCK = 1024 * 1024
SERVE = """
import sys
from backend.__main__ import main
sys.exit(main(["serve"], [sys.executable, "-m", "backend.server.worker", "--pipeline", "benchmarks.transfer"]))
"""
RECEIVE = """
import os, socket, sys
kind, path = sys.argv[1:]
if kind == "zmq":
    import zmq
    it = zmq.Context().socket(zmq.ROUTER)
    print(it.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    while True:
        route, data = it.recv_multipart(copy=False)
        it.send_multipart([route, b""])
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
block = bytearray(1 << 20)
while True:
    it = listening.accept()[0]
    with open(os.devnull if kind == "memory" else path, "wb", buffering=0) as file:
        while size := it.recv_into(block):
            file.write(memoryview(block)[:size])
    it.sendall(b"x")
    it.close()
"""


def reconstruct(source: Path, out: Path, settings, run, *, masks=None, replace_earlier=False, **cameras) -> Path:
    """The worker's side: the capture of the example clip, with as many bytes beside it as the clip asks for."""
    from backend.wire import write_capture

    words = source.read_bytes()[:100].partition(b"\n")[0].decode().split()
    run.plan = [("Writing the capture", 1.0)]

    def ballast(capture, folder: Path) -> None:
        if int(words[1]):
            _random_file(folder / "ballast.bin", int(words[1]))

    with run.stage("Writing the capture"):
        from backend.export import CAPTURE_FILES

        files = CAPTURE_FILES if words[0] == "whole" else ()
        return write_capture(example_capture(), out, [*files, ballast], replace=replace_earlier)


def example_capture():
    """48 frames of 640 x 360: the example clip's colours, its true depth with noise, the confidence of a network."""
    import imageio.v3 as iio

    from backend.truth import read_truth

    rgb = np.stack(list(iio.imiter(ROOT / "benchmarks/demo_clip/clip.mp4", plugin="pyav")))
    truth = read_truth(ROOT / "benchmarks/demo_clip/truth.npz")
    frames, height, width = rgb.shape[:3]
    rows, columns = np.arange(height) // truth.depth_step, np.arange(width) // truth.depth_step
    depth = truth.depth[:frames][:, rows][:, :, columns].astype(np.float32)
    rng = np.random.default_rng(0)
    depth *= 1 + 0.0015 * rng.standard_normal(depth.shape, np.float32)
    confidence = np.where(depth > 0, 1 + 4 / np.maximum(depth, 0.1) + 0.02 * rng.standard_normal(depth.shape), 0)
    empty = synthetic_capture(frames, width, height)
    return replace(empty, rgb=rgb, depth=depth, confidence=confidence.astype(np.float16))


class Plain:
    """A process that takes what is sent: a plain socket into memory or a file, or ZeroMQ's without encryption."""

    def __init__(self, kind: str, path: Path) -> None:
        self._kind = kind
        self._process = subprocess.Popen(
            [sys.executable, "-c", RECEIVE, kind, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def send(self, clip: Path) -> float:
        """Bytes a second."""
        size, began = clip.stat().st_size, time.perf_counter()
        if self._kind == "zmq":
            self._send_zmq(size)
        else:
            with socket.create_connection(("127.0.0.1", self._port)) as it, open(clip, "rb", buffering=0) as file:
                if self._kind == "memory":
                    block = os.urandom(BLOCK)
                    began = time.perf_counter()
                    for _ in range(size // BLOCK):
                        it.sendall(block)
                else:
                    while data := file.read(BLOCK):
                        it.sendall(data)
                it.shutdown(socket.SHUT_WR)
                it.recv(1)
        return size / (time.perf_counter() - began)

    def _send_zmq(self, size: int) -> None:
        context, block, under_way = zmq.Context(), os.urandom(BLOCK), 0
        it = context.socket(zmq.DEALER)
        it.connect(f"tcp://127.0.0.1:{self._port}")
        for _ in range(size // BLOCK):
            it.send(block, copy=False)
            under_way += 1
            if under_way == 8:
                it.recv()
                under_way -= 1
        for _ in range(under_way):
            it.recv()
        context.destroy(linger=0)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Ours:
    """The add-on's client and a server with its data in `home`."""

    def __init__(self, home: Path) -> None:
        from backend.wire import Connection, paths

        self._home = home
        environment = {**os.environ, "KINORA_HOME": str(home)}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=ROOT, stdout=subprocess.PIPE, env=environment, stderr=subprocess.DEVNULL
        )
        assert self._server.stdout is not None
        self._server.stdout.readline()
        while not paths.connection_file(home).is_file() and self._server.poll() is None:
            time.sleep(0.05)
        self._connection = Connection.read(paths.connection_file(home))

    def close(self) -> None:
        self._server.terminate()
        self._server.wait(20)

    def do(self, work: Callable[..., Awaitable[float]], *arguments: object, near: bool = False) -> float:
        """What a piece of work over a link of its own gives."""
        return asyncio.run(self._do(work, arguments, near), loop_factory=asyncio.SelectorEventLoop)

    async def _do(self, work: Callable[..., Awaitable[float]], arguments: tuple, near: bool) -> float:
        from blender_addon.link import Link

        link = Link(self._connection, prove_host=near)
        running = asyncio.create_task(link.run())
        await link.up.wait()
        try:
            return await work(link, *arguments)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def upload(self, link, clip: Path, to_the_end: bool) -> float:
        """Bytes a second of a clip's upload until the last is acknowledged, or until it is checked and durable."""
        from blender_addon.transfer import upload
        from blender_addon.wire.bundle import identify

        with open(clip, "r+b") as file:
            file.seek(100)
            file.write(os.urandom(16))  # a clip that the server does not know
        bundle, began, sent = identify(clip), time.perf_counter(), 0.0

        def told(moved) -> None:
            nonlocal sent
            if moved.done == moved.total and not sent:
                sent = time.perf_counter()

        await upload(link, bundle, "Sending the clip", told)
        return bundle.size / ((time.perf_counter() if to_the_end else sent) - began)

    async def fetch(self, link, job: str, out: Path, encoding: str) -> float:
        """Seconds of a result's fetch."""
        from blender_addon.transfer import Errand, fetch

        began = time.perf_counter()
        await fetch(link, Errand(job, out, Path("clip.mp4"), "benchmark", True, encoding), lambda moved: None, print)
        return time.perf_counter() - began

    async def pull(self, link, job: str) -> float:
        """Bytes a second of the pieces of a result, which are thrown away: the wire without disks and hashes."""
        from blender_addon.transfer import windowed
        from blender_addon.wire.framing import CHUNK, CHUNKS_MOST

        size = (
            next(p for p in (self._home / "jobs" / job / "capture").iterdir() if p.name == "ballast.bin").stat().st_size
        )

        async def get(offset: int, n: int) -> int:
            _, frames = await link.request("get", job=job, name="ballast.bin", off=offset, n=n)
            return sum(map(len, frames))

        received, began = [], time.perf_counter()
        pieces = ((at, min(CHUNKS_MOST * CHUNK, size - at)) for at in range(0, size, CHUNKS_MOST * CHUNK))
        await windowed(((piece[1], lambda piece=piece: get(*piece)) for piece in pieces), received.append)
        assert sum(received) == size
        return size / (time.perf_counter() - began)

    async def submit(self, link, clip: Path) -> str:
        """The id of a job that is done with this clip."""
        from backend.wire import JobSettings
        from blender_addon.transfer import upload
        from blender_addon.wire.bundle import identify

        bundle = identify(clip)
        await upload(link, bundle, "Sending the clip")
        settings = JobSettings().to_json()
        fields = {"sha256": bundle.sha256, "kind": "file", "name": clip.name, "size": bundle.size}
        job = (await link.request("submit", settings=settings, **fields))[0]["job"]
        while (state := (await link.request("status", job=job))[0]["state"]) not in ("done", "failed"):
            await asyncio.sleep(0.1)
        assert state == "done", (await link.request("events", job=job, since=0))[0]["events"][-1]
        return job


def read_rate(path: Path) -> float:
    """Bytes a second of reading a file that the system has in memory, as any program would."""
    size, began = path.stat().st_size, time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(BLOCK):
            pass
    return size / (time.perf_counter() - began)


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _random_file(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for _ in range(0, size, BLOCK):
            file.write(os.urandom(BLOCK))


def measure(folder: Path, size: int, turns: int) -> None:
    """Print the table of rates, then what packing does."""
    clip = folder / "clip.mp4"
    clip.write_bytes(b"")
    _random_file(clip, size)
    order = folder / "order.mp4"
    plains = {kind: Plain(kind, folder / "received.bin") for kind in ("memory", "file", "zmq")}
    ours = Ours(folder / "home")
    rates: dict[str, list[float]] = {}
    try:
        order.write_text(f"bare {size} {time.time()}\n", encoding="utf-8")
        job = ours.do(ours.submit, order)
        capture = folder / "home" / "jobs" / job / "capture"
        whole = folder_size(capture)
        for _ in range(turns):
            for kind, plain in plains.items():
                rates.setdefault(kind, []).append(plain.send(clip))
            rates.setdefault("get", []).append(ours.do(ours.pull, job))
            rates.setdefault("read", []).append(read_rate(capture / "ballast.bin"))
            # What earlier turns left goes first: memory that a virtual machine touches for the first time is slow.
            for name, to_the_end in (("up", False), ("checked", True)):
                for upload in (folder / "home" / "uploads").glob("*/*"):
                    upload.unlink()
                rates.setdefault(name, []).append(ours.do(ours.upload, clip, to_the_end))
            shutil.rmtree(folder / "far", ignore_errors=True)
            rates.setdefault("down", []).append(whole / ours.do(ours.fetch, job, folder / "far", "exact"))
            rates.setdefault("near", []).append(whole / ours.do(ours.fetch, job, folder / "near", "exact", near=True))
        _print_rates(rates, size)
        order.write_text(f"whole 0 {time.time()}\n", encoding="utf-8")
        measure_packing(folder, ours, ours.do(ours.submit, order))
    finally:
        ours.close()
        for plain in plains.values():
            plain.close()


def _print_rates(rates: dict[str, list[float]], size: int) -> None:
    """The table, from bytes a second of each turn."""

    def share(name: str, of: str) -> str:
        each = [mine / theirs for mine, theirs in zip(rates[name], rates[of], strict=True)]
        return f"{median(each):.0%} ({min(each):.0%} to {max(each):.0%})"

    turns = len(rates["memory"])
    print(f"| {size / MB:.0f} MB, {turns} turns | MB/s | of the plain socket | of the plain socket, file to file |")
    print("|---|---|---|---|")
    for name, words in (
        ("memory", "plain socket, memory to memory"),
        ("file", "plain socket, file to file"),
        ("zmq", "ZeroMQ, not encrypted, memory to memory"),
        ("get", "encrypted: pieces of a result, asked for and received, memory to memory"),
        ("up", "upload, until the last byte is acknowledged"),
        ("checked", "upload, until it is checked and durable"),
        ("down", "fetch of a result, until it is checked and durable"),
    ):
        print(f"| {words} | {median(rates[name]) / MB:.0f} | {share(name, 'memory')} | {share(name, 'file')} |")
    print(f"| plain file read | {median(rates['read']) / MB:.0f} | | |")
    near = f"{median(rates['near']) / MB:.0f} | {share('near', 'read')} of the file read"
    print(f"| fetch of a result on the same disk | {near} | |")


def measure_packing(folder: Path, ours: Ours, job: str) -> None:
    """Print what the compact encoding makes of the example's capture, and how fast."""
    from blender_addon.wire import compact
    from blender_addon.wire.capture import read_capture

    capture = folder / "home" / "jobs" / job / "capture"
    exact, read = folder_size(capture), read_capture(capture)
    points = read.depth.size
    size, notes = f"{points / 1e6:.1f} million points, {exact / MB:.0f} MB", []
    print(f"\n| capture of {size} | bits a point | packed, MB/s | unpacked, MB/s |")
    print("|---|---|---|---|")
    for codec in compact.codecs():
        packed, out = folder / f"{codec}.kc", folder / "unpacked"
        began = time.perf_counter()
        table = compact.pack(capture, packed, codec)
        middle = time.perf_counter()
        out.mkdir()
        compact.unpack(packed, out)
        end = time.perf_counter()
        bits = {row["name"]: 8 * sum(row["pieces"]) / points for row in table["arrays"]}
        error = next(row["max_relative_error"] for row in table["arrays"] if row["name"] == "depth.npy")
        both = bits["depth.npy"] + bits["rgb.npy"]
        words = ", ".join(f"{name.partition('.')[0]} {each:.1f}" for name, each in bits.items())
        print(
            f"| {codec} | depth and colour {both:.1f} ({words}); the file {8 * packed.stat().st_size / points:.1f} |"
            f" {exact / (middle - began) / MB:.0f} | {exact / (end - middle) / MB:.0f} |"
        )
        before, after = np.asarray(read.depth, np.float64), read_capture(out).depth
        known = before > 0
        measured = np.abs(after[known] / before[known] - 1).max()
        assert ((after > 0) == known).all()
        assert (read_capture(out).rgb == read.rgb).all()
        notes.append(
            f"{codec}: depth is {measured:.2e} off at most, of itself (the file says {error:.2e}); colour exact"
        )
        shutil.rmtree(out)
    print("", *notes, "", sep="\n", flush=True)
    exact_s, compact_s = (ours.do(ours.fetch, job, folder / kind, kind) for kind in ("exact", "compact"))
    again_s = ours.do(ours.fetch, job, folder / "compact", "compact")
    print(f"fetched exact in {exact_s:.2f} s, compact in {compact_s:.2f} s with packing, {again_s:.2f} s once packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="of the clip and of the result, MB")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the files lie meanwhile")
    options = parser.parse_args()
    from backend.server.heap import Heap

    Heap()  # Blender's own allocator keeps large buffers as well
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, ZeroMQ {zmq.zmq_version()}\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.size * BLOCK, options.turns)


if __name__ == "__main__":
    main()
