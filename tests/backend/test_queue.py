"""The order of the queue: priorities, clients in turn, each client's own order; and the place that each is told."""

import random
import time

import pytest

from backend.server.jobs import JobStore
from backend.server.turns import Waiting, in_order


def waiting(*ids: str, priority: int = 0, resumed: bool = False, at: int = 0) -> list[Waiting]:
    """Jobs whose owner is the first letter of their ids, in that order."""
    return [Waiting(id, id[0], priority, at + n, resumed) for n, id in enumerate(ids)]


def test_one_client_is_served_in_the_order_it_came():
    assert in_order(waiting("a1", "a2", "a3"), {}) == ["a1", "a2", "a3"]


def test_one_job_of_another_client_does_not_wait_behind_sixty_four():
    jobs = waiting(*(f"a{n}" for n in range(64)), "b")
    assert in_order(jobs, {}).index("b") == 1
    assert in_order(jobs, {"a": 7}).index("b") == 0, "the one whose turn was longer ago goes first"


def test_clients_take_turns_and_the_one_without_jobs_is_passed_over():
    jobs = waiting("a1", "a2", "a3", "b1", "c1", "c2")
    assert in_order(jobs, {}) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert in_order(jobs, {"a": 3, "b": 2, "c": 1}) == ["c1", "b1", "a1", "c2", "a2", "a3"]


def test_priority_comes_before_turns_and_turns_go_on_across_priorities():
    jobs = waiting("a1", "b1") + waiting("a9", priority=9, at=10) + waiting("b0", priority=-9, at=20)
    assert in_order(jobs, {}) == ["a9", "b1", "a1", "b0"], "b comes first, since a was served just before"


def test_what_was_interrupted_goes_on_before_everything_else():
    jobs = waiting("a1", priority=9) + waiting("b1", priority=-9, resumed=True, at=5)
    assert in_order(jobs, {}) == ["b1", "a1"]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_told_is_what_happens(seed):
    """Started one by one, the jobs come in the order that was foretold, for any queue."""
    rng = random.Random(seed)
    jobs = [
        Waiting(f"{n}", rng.choice("abcd"), rng.choice((-1, 0, 0, 0, 3)), place, rng.random() < 0.1)
        for n, place in enumerate(rng.sample(range(1000), 40))
    ]
    served = {owner: rng.randrange(100) for owner in "abc"}
    foretold = in_order(jobs, served)
    assert sorted(foretold) == sorted(job.id for job in jobs)
    came = []
    for start in range(1000, 1040):
        job = next(j for j in jobs if j.id == in_order(jobs, served)[0])
        came.append(job.id)
        jobs.remove(job)
        served[job.owner] = start
    assert came == foretold


# The same in the store


@pytest.fixture
def store(tmp_path):
    it = JobStore(tmp_path / "jobs.db")
    yield it
    it.close()


def submit(store: JobStore, *ids: str, priority: int = 0) -> None:
    for id in ids:
        store.submit(id, id[0], {}, "clip.mp4", "classical", priority)


def positions(store: JobStore) -> dict[str, int]:
    return {job: store.position(store.find(job)) for job in store.order()}


def test_positions_count_the_queue_and_what_runs(store):
    submit(store, "a1", "a2", "b1")
    assert positions(store) == {"a1": 0, "b1": 1, "a2": 2}
    store.start("a1")
    assert positions(store) == {"b1": 1, "a2": 2}
    assert store.position(store.find("a1")) == 0
    store.end("a1", "done")
    assert positions(store) == {"b1": 0, "a2": 1}


def test_the_order_is_of_numbers_and_not_of_the_clock(store, monkeypatch):
    for job, clock in (("a1", 2e9), ("a2", 1e9), ("a3", 5.0)):
        monkeypatch.setattr("backend.server.jobs.time.time", lambda clock=clock: clock)
        submit(store, job)
    assert store.order() == ["a1", "a2", "a3"]
    assert [job.id for job in store.of_owner("a", 0)[0]] == ["a3", "a2", "a1"]
    assert [store.find(job).created for job in ("a1", "a2", "a3")] == [2e9, 1e9, 5.0]


def test_numbers_go_on_in_the_next_server(tmp_path):
    for job in ("a1", "a2", "a3"):
        store = JobStore(tmp_path / "jobs.db")
        submit(store, job)
        assert store.order()[-1] == job
        store.close()


def test_a_priority_moves_a_job_past_all_clients(store):
    submit(store, "a1", "b1", "c1")
    store.prioritise("c1", 1)
    assert store.order() == ["c1", "a1", "b1"]
    store.prioritise("c1", -1)
    assert store.order() == ["a1", "b1", "c1"]


@pytest.mark.parametrize(
    ("job", "before", "order"),
    [
        ("a3", "a1", ["a3", "a1", "a2", "a4"]),
        ("a3", "a2", ["a1", "a3", "a2", "a4"]),
        ("a1", "a4", ["a2", "a3", "a1", "a4"]),
        ("a1", None, ["a2", "a3", "a4", "a1"]),
        ("a4", None, ["a1", "a2", "a3", "a4"]),
        ("a2", "a2", ["a1", "a2", "a3", "a4"]),
    ],
)
def test_a_client_puts_its_own_jobs_in_another_order(store, job, before, order):
    submit(store, "a1", "a2", "b1", "a3", "a4")
    others = {"b1": positions(store)["b1"]}
    store.reorder(job, before)
    assert [id for id in store.order() if id[0] == "a"] == order
    assert {"b1": positions(store)["b1"]} == others, "other clients keep their turns"


def test_a_job_takes_the_priority_of_where_it_is_put(store):
    submit(store, "a1", "a2")
    submit(store, "a3", priority=5)
    submit(store, "a4", priority=-5)
    store.reorder("a2", "a3")
    assert store.order() == ["a2", "a3", "a1", "a4"]
    assert store.find("a2").priority == 5
    store.reorder("a3", None)
    assert store.order() == ["a2", "a1", "a4", "a3"]
    assert store.find("a3").priority == -5
    store.reorder("a4", "a1")
    assert store.order() == ["a2", "a4", "a1", "a3"]


def test_a_job_that_was_interrupted_is_next_until_its_owner_says_otherwise(store):
    submit(store, "a1")
    submit(store, "b1", priority=9)
    store.start("a1")
    store.requeue("a1", "queued", "The backend was restarted")
    assert store.order() == ["a1", "b1"]
    store.prioritise("a1", 0)
    assert store.order() == ["b1", "a1"]
    assert store.find("a1").attempt == 2


def test_thousands_of_jobs_are_put_in_order_in_little_time():
    """A hundred clients with all the jobs that they may have; the loop waits for this."""
    jobs = [Waiting(str(n), f"owner {n % 100}", n % 3 // 2, n) for n in range(6400)]
    began = time.process_time()
    order = in_order(jobs, {})
    assert time.process_time() - began < 0.25
    assert order[:3] == ["2", "5", "8"], "the owners in turn, those of the higher priority first"
    assert len(set(order)) == 6400
