"""The client and jobs that the server has already: followed, fetched again, listed, and any request beside."""

import time

import pytest

from backend.wire import JobSettings, read_capture
from blender_addon.client import Answered, JobCancelled, JobDone, JobFailed, JobProgress, JobQueued
from tests.serving import client, clip_that, collect, end_of, reconstruct, server

SETTINGS = JobSettings()


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def near(broker):
    with client(broker.connection) as it:
        yield it


def has(kind):
    return lambda events: any(isinstance(event, kind) for event in events)


def test_a_job_of_an_earlier_client_is_followed_and_its_result_fetched(broker, tmp_path):
    """The client that asked is gone, as after a crash of Blender; another one with the same key takes over."""
    clip = clip_that(tmp_path, "show", "8", "0.1")
    with client(broker.connection) as first:
        first.submit(clip, SETTINGS, tmp_path / "first")
        job = next(e.job for e in collect(first, has(JobQueued)) if isinstance(e, JobQueued))
    with client(broker.connection) as second:
        ticket = second.attach(job, tmp_path / "second", clip)
        events = collect(second, has((JobDone, JobFailed)))
        assert events[-1] == JobDone(ticket, tmp_path / "second")
        assert not (tmp_path / "first").exists()
        assert read_capture(tmp_path / "second").clip.source == str(clip)
        again = second.attach(job, tmp_path / "third", clip)  # once more, from the finished job
        assert end_of(second, again) == JobDone(again, tmp_path / "third")


def test_the_end_of_an_earlier_attempt_is_no_news_to_who_follows(near, tmp_path):
    """A job was cancelled and sent again: who follows it sees the second attempt."""
    clip = clip_that(tmp_path, "slow")
    ticket = near.submit(clip, SETTINGS, tmp_path / "out")
    job = next(e.job for e in collect(near, has(JobProgress)) if isinstance(e, JobQueued))
    near.cancel(ticket)
    assert isinstance(end_of(near, ticket), JobCancelled)
    again = near.submit(clip, SETTINGS, tmp_path / "out")
    collect(near, has(JobProgress))
    follower = near.attach(job, tmp_path / "followed", clip)
    collect(near, lambda events: any(isinstance(e, JobProgress) and e.ticket == follower for e in events))
    near.cancel(again)
    assert isinstance(end_of(near, follower), JobCancelled)
    # And who comes after the end is told of the end.
    assert isinstance(end_of(near, near.attach(job, tmp_path / "late", clip)), JobCancelled)


def test_a_job_that_the_server_does_not_know_is_a_failure_with_its_words(near, tmp_path):
    end = end_of(near, near.attach("0" * 32, tmp_path / "out", tmp_path / "clip.mp4"))
    assert isinstance(end, JobFailed)
    assert "does not know this job" in end.message


def test_all_jobs_of_the_key_are_listed_also_those_of_others_who_have_it(broker, tmp_path):
    clip = clip_that(tmp_path, "refuse")
    with client(broker.connection) as first:
        reconstruct(first, clip, tmp_path / "out")
    with client(broker.connection) as second:
        ticket = second.jobs()
        answered = next(e for e in collect(second, has(Answered)) if isinstance(e, Answered))
    assert answered.ticket == ticket
    found = next(row for row in answered.answer.jobs if row.name == clip.name)
    assert (found.state, found.engine, found.ended_already) == ("failed", "classical", True)
    assert abs(found.created - time.time()) < 60


def test_any_request_can_be_asked_and_a_refusal_is_told(near):
    ticket = near.ask("delete", job="0" * 32)
    answered = next(e for e in collect(near, has(Answered)) if isinstance(e, Answered))
    assert (answered.ticket, answered.answer) == (ticket, None)
    assert "does not know this job" in answered.message
