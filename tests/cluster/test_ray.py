"""A real Ray cluster of two nodes on this machine: the contract, and four clips with one node killed in the middle."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.cluster.executor import DRIVER_COMMAND, RayExecutor
from backend.server.executor import Executor
from backend.server.local_executor import LocalExecutor
from backend.wire import ClassicalSettings, ClipSettings, JobSettings, messages
from tests.footage import write_video
from tests.serving import RawClient, send, server, state_of, wait_for
from tests.worlds import room

from .contract import EXACT, WORKER, ExecutorContract, assert_helped, assert_same, content, long_job, workers_below

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters are for Linux"),
]
SIZE = 160, 96
NODE = {"num_cpus": 1, "resources": {"kinora": 1}, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes with a slot each and a head without; only who has the token may speak with them."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as short:
        for name, value in {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on 127.0.0.1
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": short,  # sockets below it have long names
            "KINORA_HOME": str(tmp_path_factory.mktemp("nodes")),
        }.items():
            patch.setenv(name, value)
        it = two_nodes()
        TestRay.address = it.address
        yield it
        it.shutdown()


def two_nodes(attempts: int = 4) -> Any:
    """A cluster; begun anew where a busy machine is too slow for Ray, which waits 30 s for a node and no longer."""
    from ray.cluster_utils import Cluster

    it = Cluster(initialize_head=False)
    try:
        it.add_node(**{**NODE, "num_cpus": 0, "resources": {}}, include_dashboard=False)
        it.nodes = [it.add_node(**NODE) for _ in range(2)]
        return it
    except Exception as error:
        it.shutdown()
        if attempts == 1 or "timed out" not in str(error):
            raise
        return two_nodes(attempts - 1)


@pytest.mark.usefixtures("cluster")
class TestRay(ExecutorContract):
    """Workers on the nodes."""

    address = ""

    @staticmethod
    def new_executor(home):
        return RayExecutor(TestRay.address, home / "cluster.txt", worker_command=WORKER)


def test_an_idle_node_helps_with_a_long_clip(cluster, tmp_path):
    """Its capture is what the local executor makes of it, to the last bit."""
    driver = (*DRIVER_COMMAND, "--help-from", "20")
    executor = RayExecutor(cluster.address, tmp_path / "cluster.txt", worker_command=EXACT, driver_command=driver)
    helped = long_job(tmp_path / "ray").start(executor)
    assert helped.outcome().state == "done", helped.log.read_text()
    executor.close()
    assert_helped(helped)
    assert_same(helped, LocalExecutor(EXACT))


def clips(folder: Path, count: int = 4, frames: int = 8) -> list[Path]:
    """Videos of the synthetic room, each with another lens."""
    worlds = [room(frames, *SIZE, focal_px=(0.85 + 0.05 * n) * SIZE[0]) for n in range(count)]
    return [write_video(folder / f"room{n}.mp4", world.rgb) for n, world in enumerate(worlds)]


def order(raw: RawClient, clip: Path) -> str:
    """The id of a job of the classical engine, whose footage is sent to the server."""
    settings = JobSettings(clip=ClipSettings(long_side=SIZE[0]), engine_settings=ClassicalSettings())
    return send(raw, clip, settings=settings.to_json())["job"]


def test_four_clips_survive_the_loss_of_a_node(cluster, tmp_path):
    """Every job finishes, one at its second attempt, and each capture is what the local executor makes of its clip."""
    footage = clips(tmp_path)

    def lose_a_node(raw: RawClient, jobs: list[str]) -> None:
        wait_for(lambda: sum(is_under_way(raw, job) for job in jobs) == 2, 120)
        cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)

    executor = RayExecutor(cluster.address, tmp_path / "cluster.txt", worker_command=EXACT)
    captures, retries = made(tmp_path / "ray", executor, footage, lose_a_node)
    assert sorted(map(len, retries)) == [0, 0, 0, 1], retries
    assert "The node that ran the job was lost" in next(filter(None, retries))[0]
    for capture, local in zip(captures, made(tmp_path / "local", LocalExecutor(EXACT), footage)[0]):
        assert [name for name in local if capture.get(name) != local[name]] == []
        assert capture.keys() == local.keys()
    assert workers_below(tmp_path) == []


def made(
    home: Path,
    executor: Executor,
    footage: list[Path],
    meanwhile: Callable[[RawClient, list[str]], None] = lambda raw, jobs: None,
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """What a server makes of the clips, and what it said of each job's retries; `meanwhile` happens while it does."""
    with server(home, executor=executor) as broker, RawClient(broker.connection) as raw:
        jobs = [order(raw, clip) for clip in footage]
        meanwhile(raw, jobs)
        wait_for(lambda: all(state_of(raw, job) in messages.ENDED for job in jobs), 240)
        events = [raw.ask("events", job=job, since=0)["events"] for job in jobs]
        assert [state_of(raw, job) for job in jobs] == ["done"] * len(jobs), events
        retries = [[event["text"] for event in told if event["kind"] == "retry"] for told in events]
        return [content(home / "jobs" / job / "capture") for job in jobs], retries


def is_under_way(raw: RawClient, job: str) -> bool:
    """Whether the job is past reading its clip, and not yet done."""
    told = raw.ask("status", job=job)
    return told["state"] == "running" and told["fraction"] > 0.1
