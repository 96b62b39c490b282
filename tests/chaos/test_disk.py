"""A disk that is full: the server lives and says so, the job waits, and goes on by itself when there is room."""

import errno
import sys

import psutil
import pytest

from backend.server.retention import Keeping
from backend.server.worker import _failure
from backend.wire import JobSettings, UserError
from blender_addon.client import JobDone, JobFailed, JobLog
from tests import serving
from tests.serving import RawClient, client, collect, end_of, wait_for

from .pipeline import differences, write_clip
from .processes import server_process
from .small_disk import small_disk

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Linux's limits")
MIB = 2**20


@pytest.mark.slow
def test_a_full_disk_holds_jobs_up_and_loses_none(tmp_path):
    """Filled to the last byte while one job runs and one waits."""
    worker = serving.worker_of("tests.chaos.pipeline")
    ledger = tmp_path / "ledger.txt"
    clips = [write_clip(tmp_path / f"{n}.mp4", n, ledger, stage_s=0.4) for n in range(3)]
    with (
        small_disk(tmp_path / "disk", 24 * MIB) as disk,
        serving.server(disk.folder / "home", worker, keeping=Keeping(free_bytes=0)) as broker,
        client(broker.connection) as it,
        RawClient(broker.connection) as raw,
    ):
        assert isinstance(end_of(it, it.submit(clips[0], JobSettings(), tmp_path / "out0")), JobDone)
        tickets = [it.submit(clips[n], JobSettings(), tmp_path / f"out{n}") for n in (1, 2)]
        wait_for(lambda: "1 begin Matching" in ledger.read_text())
        disk.fill()
        wait_for(lambda: broker._scheduler._ran_full, 60)  # the first of the two has found it full
        assert raw.ask("ping")["t"] == "ping", "the server lives"
        states = {row["name"]: row["state"] for row in raw.ask("list", first=0)["jobs"]}
        assert states == {"0.mp4": "done", "1.mp4": states["1.mp4"], "2.mp4": "queued"}
        assert states["1.mp4"] in ("queued", "running"), "it waits"
        disk.free()
        events = collect(
            it,
            lambda events: sum(isinstance(e, JobDone | JobFailed) for e in events) == 2,
            90,
        )
        assert [e for e in events if isinstance(e, JobFailed)] == []
        assert {e.ticket for e in events if isinstance(e, JobDone)} == set(tickets)
        assert any("disk" in e.text for e in events if isinstance(e, JobLog)), "and was told why it waited"
        for n, clip in enumerate(clips):
            assert differences(tmp_path / f"out{n}", tmp_path / "truth", n, clip) == ""
            kept = broker._scheduler.folder(
                next(r["job"] for r in raw.ask("list", first=0)["jobs"] if r["name"] == clip.name)
            )
            assert differences(kept / "capture", tmp_path / "truth", n, clip) == "", "the server's own, too"


@pytest.mark.slow
def test_a_server_that_may_write_no_more_says_so_and_goes_on_when_it_may(tmp_path):
    """No file of it may grow beyond what it has: every write of the server fails, and of nobody else."""
    with (
        server_process(tmp_path / "home") as server,
        client(server.connection) as it,
        RawClient(server.connection) as raw,
    ):
        first = write_clip(tmp_path / "0.mp4", 0, stage_s=0.0)
        assert isinstance(end_of(it, it.submit(first, JobSettings(), tmp_path / "out0")), JobDone)
        process, unlimited = psutil.Process(server.process.pid), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        process.rlimit(psutil.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        refused = serving.send(raw, write_clip(tmp_path / "1.mp4", 1, stage_s=0.0))
        assert refused["t"] == "error", refused
        assert refused["code"] in ("disk", "disk_full"), refused
        assert refused["hint"]
        assert raw.ask("ping")["t"] == "ping"
        process.rlimit(psutil.RLIMIT_FSIZE, unlimited)
        second = write_clip(tmp_path / "2.mp4", 2, stage_s=0.0)
        assert isinstance(end_of(it, it.submit(second, JobSettings(), tmp_path / "out2")), JobDone)
        for n, clip in ((0, first), (2, second)):
            assert differences(tmp_path / f"out{n}", tmp_path / "truth", n, clip) == ""


def told_as(error: OSError) -> UserError:
    """The error as `staged_folder` tells it."""
    try:
        raise UserError("The capture could not be written") from error
    except UserError as sentence:
        return sentence


@pytest.mark.parametrize("tell", [lambda error: error, told_as], ids=["bare", "in a sentence"])
@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError("600000 requested and 12288 written"), True),  # NumPy's, of an array that did not go out whole
        (OSError("image file is truncated (3 bytes not processed)"), False),
        (TimeoutError("the read timed out"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors_of_the_system(error, full, tell):
    told = _failure(tell(error), "log.txt")
    assert told["state"] == "failed"
    assert (told.get("cause") == "disk_full") is full
