"""A job on nodes that misbehave: it ends with the reason, soon, and never waits for what is not there."""

from __future__ import annotations

from typing import Any

import pytest

from backend import __version__
from backend.cluster import job as cluster_job
from backend.cluster.crew import Crew
from backend.cluster.job import Gone, Job, Unreachable
from backend.wire import UserError
from tests.serving import wait_for


class Node:
    """Answers hello, and to everything else as `behaviour` does."""

    def __init__(self, behaviour, version=__version__, comes=True) -> None:
        self.behaviour, self.version, self.comes = behaviour, version, comes
        self.ended, self.urged = False, []

    def ready(self, timeout_s):
        if self.comes is Gone:
            raise Gone("it was lost when the job began")
        return self.comes

    def ask(self, method, *arguments, timeout_s):
        if method == "hello":
            return {"where": "a node", "version": self.version}
        return self.behaviour(method)

    def urge(self, method):
        self.urged.append(method)

    def end(self):
        self.ended = True


class Nodes:
    def __init__(self, *nodes: Node, slots: int = 1) -> None:
        self.nodes, self.slots, self.placed = list(nodes), slots, 0

    def look(self):
        return self.slots

    def place(self, worker):
        self.placed += 1
        return self.nodes.pop(0)


def raises(error: Exception):
    def behave(method):
        raise error

    return behave


@pytest.fixture
def outcome_of(tmp_path, monkeypatch):
    """The outcome of a job on these nodes, and the job."""
    for name, seconds in (("SILENT_S", 0.3), ("NO_SLOT_S", 0.2), ("POLL_S", 0.01), ("RETRY_S", 0.01)):
        monkeypatch.setattr(cluster_job, name, seconds)
    spec = {"out": str(tmp_path / "capture"), "clip": {"path": "x"}, "masks": None, "cache": None, "log": "log"}

    def do(nodes: Nodes) -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        it = Job(nodes, spec, [], True, lambda kind, **fields: told.append({"t": kind, **fields}))
        it.start()
        it.join(10)
        assert not it.is_alive()
        assert told[-1]["t"] == "outcome"
        assert list(tmp_path.iterdir()) == []
        return told[-1]

    return do


def test_a_node_that_is_silent_is_given_up(outcome_of):
    node = Node(raises(Unreachable("no answer")))
    outcome = outcome_of(Nodes(node))
    assert (outcome["state"], outcome["cause"]) == ("failed", "lost")
    assert "answered nothing" in outcome["message"]
    assert node.ended


def test_a_node_that_is_gone_is_lost_at_once(outcome_of):
    outcome = outcome_of(Nodes(Node(raises(Gone("its daemon or its process ended")))))
    assert outcome["cause"] == "lost"
    assert "its daemon" in outcome["message"]


def test_a_job_is_given_another_place_while_nothing_has_begun(outcome_of):
    dead = [Node(raises(Gone("never asked")), comes=Gone) for _ in range(2)]
    nodes = Nodes(*dead, Node(raises(Gone("its daemon or its process ended"))))
    assert "its daemon" in outcome_of(nodes)["message"]
    assert nodes.placed == 3


def test_nobody_waits_for_nodes_that_there_are_not(outcome_of):
    outcome = outcome_of(Nodes(Node(raises(Gone("never asked")), comes=False), slots=0))
    assert outcome["cause"] == "lost"
    assert "no node of the cluster has a slot" in outcome["message"]


def test_another_version_of_kinora_is_refused_in_one_sentence(outcome_of):
    outcome = outcome_of(Nodes(Node(raises(Gone("never asked")), version="9.9")))
    assert outcome["message"] == f"a node has Kinora 9.9, this server {__version__}"
    assert outcome["cause"] == ""


def test_what_the_user_can_fix_is_said_as_it_is(outcome_of):
    outcome = outcome_of(Nodes(Node(raises(UserError("There is no file x", "check the path")))))
    assert (outcome["message"], outcome["hint"], outcome["cause"]) == ("There is no file x", "check the path", "")


def test_a_full_disk_is_not_a_lost_node(outcome_of):
    outcome = outcome_of(Nodes(Node(raises(OSError(28, "No space left on device")))))
    assert "could not be carried" in outcome["message"]
    assert outcome["cause"] == ""


def test_a_job_without_a_place_can_be_cancelled(tmp_path):
    told = []
    spec = {"out": str(tmp_path / "capture"), "clip": {"path": "x"}, "masks": None, "cache": None}
    it = Job(Nodes(Node(None, comes=False)), spec, [], True, lambda kind, **fields: told.append(fields))
    it.start()
    it.cancel()
    it.join(10)
    assert told[-1]["state"] == "cancelled"


def test_a_helper_leaves_when_a_job_needs_its_slot(tmp_path):
    nodes = Nodes(*(Node(None, comes=False) for _ in range(4)), slots=2)
    crew = Crew(nodes, [], True, 10)
    spec = {"out": str(tmp_path / "capture"), "clip": {"path": "x"}, "masks": None, "cache": "cache"}
    told = []
    tell = lambda kind, **fields: told.append(fields.get("text"))  # noqa: E731
    crew.begin(1, spec, tell)
    crew._help(1, spec, tell)
    assert told == ["1 more worker helps with it"]
    ((_, helper),) = crew._helpers
    crew._help(1, spec, tell)  # nobody is idle any more
    assert len(told) == 1
    crew.begin(2, spec, tell)
    wait_for(lambda: not helper.is_alive())
    assert all(job.is_alive() for job in crew._jobs.values())
    for number in (1, 2):
        crew.order(number, "kill")
    wait_for(lambda: not any(job.is_alive() for job in crew._jobs.values()))
