"""Files that were half written when the power went: the next server lives or says why not, and loses nothing else."""

import contextlib
import hashlib
import os
import random
import re
import shutil
import sqlite3
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.wire import JobSettings, framing
from tests.serving import RawClient, client, end_of, send

from .pipeline import STAGES, differences, write_clip
from .processes import ServerProcess, left_behind, new_mark, server_process

DONE, WAITING, SENT_IN_PART = (0, 1, 2), (3, 4), 5


@dataclass
class Place:
    """A data folder that a server left by kill -9, and the clips that it knew."""

    home: Path
    clips: list[Path]
    jobs: list[str]


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory):
    """Three jobs done, two under way, and a clip sent by half."""
    folder = tmp_path_factory.mktemp("lived in")
    place = Place(folder / "home", [], [])
    for n in (*DONE, *WAITING):
        place.clips.append(write_clip(folder / f"{n}.mp4", n, stage_s=0.0 if n in DONE else 0.2))
    place.clips.append(write_clip(folder / f"{SENT_IN_PART}.mp4", SENT_IN_PART, stage_s=0.0, ballast=3_000_000))
    server = ServerProcess(place.home, new_mark())
    server.start()
    server.answers()
    with RawClient(server.connection) as raw:
        for n in (*DONE, *WAITING):
            place.jobs.append(send(raw, place.clips[n])["job"])
        while raw.ask("status", job=place.jobs[DONE[-1]])["state"] != "done":
            time.sleep(0.05)
        data = place.clips[SENT_IN_PART].read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        raw.ask("upload_open", sha256=sha256, size=len(data))
        first = data[: framing.CHUNK]
        assert raw.ask("upload_chunk", first, sha256=sha256, off=0, crc=zlib.crc32(first))["have"] == framing.CHUNK
        server.kill()
    assert left_behind(server.mark) == []
    return place


@pytest.fixture
def place(lived_in, tmp_path):
    """A copy to damage."""
    shutil.copytree(lived_in.home, tmp_path / "home")
    return Place(tmp_path / "home", lived_in.clips, lived_in.jobs)


def cut(path: Path, seed: int) -> str:
    """Truncate a file at a random point, as a disk does that never wrote the rest; what was done in words."""
    size = path.stat().st_size
    keep = random.Random(seed).randrange(size)
    os.truncate(path, keep)
    return f"{path.name}: {keep} of {size} bytes are left"


def brings(server: ServerProcess, place: Place, folder: Path, numbers) -> None:
    """Have these captures of the server, by sending the clips again, and hold every byte against the truth."""
    with client(server.connection, share_files=False) as it:
        for n in numbers:
            out = folder / f"out{n}"
            end = end_of(it, it.submit(place.clips[n], JobSettings(), out))
            assert out.is_dir(), end
            assert differences(out, folder / "truth", n, place.clips[n]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_torn_journal_of_the_database(place, tmp_path, seed):
    """What was only in the lost end of it may be asked for again; everything else is still there."""
    print(cut(place.home / "jobs.db-wal", seed))
    with server_process(place.home) as server:
        with RawClient(server.connection) as raw:
            known = {row["job"]: row["state"] for row in raw.ask("list", first=0)["jobs"]}
        assert set(known) <= set(place.jobs)
        brings(server, place, tmp_path, (*DONE, *WAITING))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jobs.db", "keys.json"], ids=["a torn database", "torn keys"])
def test_what_cannot_be_healed_is_told_in_a_sentence_and_not_touched(place, name):
    """A database without its end, or half a key: nothing is made up in its place."""
    with contextlib.closing(sqlite3.connect(place.home / "jobs.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    print(cut(place.home / name, 4))
    torn = (place.home / name).read_bytes()
    server = ServerProcess(place.home, new_mark())
    server.start()
    assert server.process.wait(30) == 1
    said = server.tail()
    assert "Traceback" not in said
    assert str(place.home / name) in said, said
    assert len([line for line in said.splitlines() if not re.match(r"\d{4}-", line)]) == 1, said
    assert (place.home / name).read_bytes() == torn
    assert left_behind(server.mark) == []


@pytest.mark.slow
def test_a_connection_file_by_half_and_uploads_by_half_are_made_anew(place, tmp_path):
    print(cut(place.home / "connection.json", 5))
    parts = [p for p in (place.home / "uploads").rglob("*") if p.is_file() and p.stat().st_size >= framing.CHUNK]
    assert parts, "the clip that was sent by half"
    for part in parts:
        print(cut(part, 6))
    with server_process(place.home) as server:
        brings(server, place, tmp_path, (WAITING[0], SENT_IN_PART))


@pytest.mark.slow
def test_a_torn_result_is_not_handed_out_but_made_again(place, tmp_path):
    """Of three finished jobs one lost half its description, one half an array, one everything but the folder."""
    captures = [place.home / "jobs" / place.jobs[n] / "capture" for n in DONE]
    print(cut(captures[0] / "capture.json", 7), cut(captures[1] / "shading.npy", 8))
    for file in captures[2].iterdir():
        file.unlink()
    with server_process(place.home) as server:
        brings(server, place, tmp_path, DONE)


@pytest.mark.slow
def test_torn_results_of_stages_are_computed_again(place, tmp_path):
    """The two jobs under way find what they had kept in pieces."""
    entries = [path for path in (place.home / "cache").iterdir() if path.name.partition(".")[0].title() in STAGES]
    assert len(entries) >= len(DONE) * len(STAGES)
    for i, entry in enumerate(sorted(entries)):
        torn = sorted(entry.iterdir())
        print(cut(torn[i % len(torn)], 10 + i))
    for n in DONE:
        shutil.rmtree(place.home / "jobs" / place.jobs[n])
    with server_process(place.home) as server:
        brings(server, place, tmp_path, (*DONE, *WAITING))


@pytest.mark.slow
def test_of_two_servers_on_one_store_the_first_goes_on(tmp_path):
    """Also after the first was killed, while its worker may still be on its way out: then the second begins."""
    clip = write_clip(tmp_path / "1.mp4", 1, stage_s=1.0)
    place = Place(tmp_path / "home", [clip, clip], [])
    first = ServerProcess(place.home, mark := new_mark())
    first.start()
    first.answers()
    with RawClient(first.connection) as raw:
        job = send(raw, clip)["job"]
        second = ServerProcess(place.home, mark)
        second.log = tmp_path / "second.log"
        second.start()
        assert second.process.wait(30) == 1
        assert "runs already" in second.tail()
        assert str(first.process.pid) in second.tail(), "which one it is"
        assert "Traceback" not in second.tail()
        assert raw.ask("status", job=job)["state"] in ("queued", "running", "done")
        first.kill()
    second.start()
    assert second.answers() < 5.0
    with RawClient(second.connection) as raw:
        assert raw.ask("status", job=job)["state"] in ("queued", "running", "done")
    brings(second, place, tmp_path, [1])
    second.stop()
    assert left_behind(mark) == []
