"""The contract of executors, held by the local one and by that of a cluster, here one without Ray."""

from __future__ import annotations

import signal
import sys

import pytest

from backend.cluster.executor import DRIVER_COMMAND, RayExecutor
from backend.server.local_executor import LocalExecutor
from backend.wire import JobSettings, LocaliseSettings, UserError, read_capture, write_capture
from tests.serving import wait_for
from tests.worlds import as_capture, room

from .contract import EXACT, WORKER, ExecutorContract, Job, assert_helped, assert_same, long_job, workers_below

DRIVER = (*DRIVER_COMMAND, "--nodes", "tests.cluster.local_nodes")


class TestLocal(ExecutorContract):
    """Workers of this machine, on two devices."""

    @staticmethod
    def new_executor(home):
        return LocalExecutor(WORKER, ("auto", "cpu"))


class TestCluster(ExecutorContract):
    """Nodes that see the server's folders, behind a network that loses every fifth answer."""

    @staticmethod
    def new_executor(home, share=True):
        return RayExecutor("here", home / "cluster.txt", worker_command=WORKER, share=share, driver_command=DRIVER)

    def test_nothing_is_left_on_the_node(self, executor, home):
        assert Job(home, "work").start(executor).outcome().state == "done"
        assert list((home / "node" / "node").iterdir()) == []

    def test_a_job_says_where_it_runs(self, executor, home):
        job = Job(home, "work").start(executor)
        job.outcome()
        assert job.events[0]["text"] == f"This job runs on {job.running.where}"

    def test_when_the_driver_dies_its_jobs_are_lost_and_another_one_goes_on(self, make, home, monkeypatch):
        executor = make()
        monkeypatch.setattr("backend.cluster.executor.RECONNECT_S", 0.1)
        job = Job(home, "slow").start(executor)
        job.hears("progress")
        executor._driver.kill()
        assert job.outcome().cause == "lost"
        wait_for(lambda: executor.free() == 2)
        assert Job(home, "work").start(executor).outcome().state == "done"
        executor.close()

    @pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
    def test_a_driver_that_hangs_is_ended(self, make, home, monkeypatch):
        monkeypatch.setattr("backend.cluster.executor.SILENT_S", 3.0)
        executor = make()
        job = Job(home, "slow").start(executor)
        job.hears("progress")
        executor._driver.send_signal(signal.SIGSTOP)
        assert job.outcome().cause == "lost"
        executor.close()


@pytest.mark.slow
def test_an_idle_slot_helps_with_a_long_clip(tmp_path, monkeypatch):
    """The capture is that of one alone, to the last bit."""
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "node"))
    driver = (*DRIVER, "--help-from", "20")
    executor = RayExecutor("here", tmp_path / "cluster.txt", worker_command=EXACT, driver_command=driver)
    helped = long_job(tmp_path / "cluster").start(executor)
    assert helped.outcome().state == "done", helped.log.read_text()
    executor.close()
    assert_helped(helped)
    assert_same(helped, LocalExecutor(EXACT))
    assert workers_below(tmp_path) == []


@pytest.mark.slow
class TestFarCluster(TestCluster):
    """Nodes that see nothing of the server's: all files are carried."""

    @staticmethod
    def new_executor(home):
        return TestCluster.new_executor(home, share=False)

    def test_known_masks_and_cameras_are_carried(self, executor, home):
        job = Job(home, "work")
        masks = home / "masks"
        masks.mkdir()
        for n in range(3):
            (masks / f"{n}.png").write_bytes(b"mask %d" % n)
        job.spec["masks"] = {"path": str(masks)}
        assert job.start(executor).outcome().state == "done"
        assert any("looking at 1 files, 3 masks" in e.get("text", "") for e in job.events)

    def test_the_capture_that_a_plate_is_localised_in_is_carried(self, executor, home):
        job = Job(home, "work")
        job.spec["settings"] = JobSettings("localise", engine_settings=LocaliseSettings(reference="a" * 32)).to_json()
        job.spec["reference"] = str(write_capture(as_capture(room(2, 32, 24)), home / "jobs" / ("a" * 32) / "capture"))
        assert job.start(executor).outcome().state == "done", job.log.read_text()
        assert any(e.get("text") == "localised in room.mp4" for e in job.events)
        assert read_capture(job.capture).shot.details["localised"]["reference"]["source"] == "room.mp4"

    def test_a_sequence_is_carried_as_one(self, executor, home):
        job = Job(home, "work")
        sequence = home / "sequence"
        sequence.mkdir()
        for n in range(3):
            (sequence / f"work.{n:03d}.png").write_bytes(b"work\n")
        job.spec["clip"] = {"path": str(sequence)}
        assert job.start(executor).outcome().state == "done"
        assert any("looking at 3 files" in e.get("text", "") for e in job.events)


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="The Ray cluster at nowhere cannot be reached: nothing answers"):
        RayExecutor("nowhere", tmp_path / "cluster.txt", driver_command=DRIVER)
