"""What a clip is and what a job would take, asked of a real server, whose children count and calculate."""

from __future__ import annotations

import json
import time
from fractions import Fraction

import pytest

from backend.cost import Cost, Footage
from backend.estimate import _no_room, cost_of, estimate, ratio_of
from backend.machine import Machine
from backend.probe import probe
from backend.server.asides import Asides
from backend.wire import ClassicalSettings, ClipSettings, JobSettings, MonST3RSettings, UserError
from blender_addon.client import Answered
from tests.footage import pictures, write_video
from tests.serving import RawClient, client, collect, server


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def near(broker):
    with client(broker.connection) as it:
        yield it


@pytest.fixture
def weights_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path / "no weights"))


def answer(it, ticket) -> Answered:
    mine = lambda e: isinstance(e, Answered) and e.ticket == ticket  # noqa: E731
    return next(filter(mine, collect(it, lambda events: any(map(mine, events)))))


def test_a_clip_is_counted_to_its_last_packet(tmp_path):
    path = write_video(tmp_path / "film.mp4", pictures(30), fps=Fraction(24000, 1001))
    facts = probe(path)
    assert (facts.width, facts.height, facts.frames, facts.fps) == (160, 96, 30, Fraction(24000, 1001))
    assert facts.counted
    assert not facts.variable_frame_rate
    assert not facts.audio
    assert facts.codec == "h264"


def test_a_variable_rate_shows_without_decoding(tmp_path):
    times = [0, 1, 2, 3, 5, 6, 8, 9, 10, 13]
    path = write_video(tmp_path / "phone.mp4", pictures(10), pts=[100 * t for t in times], time_base=Fraction(1, 3000))
    facts = probe(path)
    assert facts.variable_frame_rate
    assert facts.frames == 10
    assert "varies" in " ".join(facts.warnings)


def test_what_is_no_clip_is_refused_in_words(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    with pytest.raises(UserError, match="not a video that can be read"):
        probe(path)


def test_a_client_learns_the_facts_of_a_clip_on_the_same_disk(near, tmp_path):
    path = write_video(tmp_path / "film.mp4", pictures(12))
    told = answer(near, near.probe(path))
    assert told.answer == probe(path)


def test_a_client_learns_why_there_are_none(near, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    told = answer(near, near.probe(path))
    assert told.answer is None
    assert "not a video" in told.message
    assert "mp4" in told.hint


def test_files_are_not_shown_to_clients_elsewhere(broker, tmp_path):
    path = write_video(tmp_path / "film.mp4", pictures(3))
    with RawClient(broker.connection) as raw:  # it has not proved that it sees the server's disk
        told = raw.ask("probe", path=str(path))
    assert (told["t"], told["code"]) == ("error", "not_same_host")


def test_a_client_learns_what_a_job_would_take(near, weights_elsewhere):
    found = answer(near, near.estimate(JobSettings(), 1920, 1080, 50, 24.0)).answer
    assert found.frames == 50
    assert 0 < found.seconds_low < found.seconds_high
    assert found.memory_free > found.memory_bytes > 10**8
    assert not found.problem


def test_more_pixels_and_more_frames_take_longer_and_more_memory(tmp_path):
    def told(engine, options, frames, long_side):
        settings = JobSettings(engine, ClipSettings(long_side=long_side), engine_settings=options)
        return estimate(1920, 1080, frames, 24.0, settings, Machine(cores=4, memory_free=10**12), tmp_path)

    for engine in (("classical", ClassicalSettings()), ("monst3r", MonST3RSettings())):
        base, longer, finer = told(*engine, 50, 512), told(*engine, 200, 512), told(*engine, 50, 768)
        for more in (longer, finer):
            assert more.seconds_high > base.seconds_high
            assert more.memory_bytes > base.memory_bytes


def test_an_estimate_says_what_would_make_the_job_fail(weights_elsewhere, tmp_path):
    def told(settings, frames):
        return estimate(1920, 1080, frames, 24.0, settings, Machine(cores=4, memory_free=10**12), tmp_path)

    learned = told(JobSettings(engine="monst3r", engine_settings=MonST3RSettings()), 60)
    assert "weights of MonST3R" in learned.problem
    assert learned.weights == ("monst3r", "raft_large")
    assert "2100 frames" in told(JobSettings(), 2100).problem
    assert "2 frames" in told(JobSettings(clip=ClipSettings(first_frame=58)), 60).problem


def test_a_job_that_does_not_fit_is_told_with_both_figures():
    machine = Machine(cores=4, memory_free=10**9)
    cost = cost_of(Footage(3840, 2160, tuple(i / 24 for i in range(500))), JobSettings(), machine)
    message, hint = _no_room(cost, machine)
    assert f"{cost.memory_bytes / 1e9:.1f} GB of memory, and 1.0 GB are free" in message
    assert "Resolution" in hint


def test_finished_jobs_correct_the_time_and_narrow_it(tmp_path):
    """A machine three times as slow as ours: after some jobs its estimates say so."""
    machine, settings = Machine(cores=4, memory_free=10**12), JobSettings(engine_settings=ClassicalSettings())
    times = tuple(i / 24 for i in range(40))
    cost = cost_of(Footage(1280, 720, times), settings, machine)
    taken = 3 * cost.seconds
    ask = lambda: estimate(1280, 720, 40, 24.0, settings, machine, tmp_path)  # noqa: E731
    before = ask()
    for number in range(3):
        folder = tmp_path / f"job{number}" / "capture"
        folder.mkdir(parents=True)
        capture = {
            "engine": {"name": "classical"},
            "timings": [{"stage": stage, "seconds": 3 * s} for stage, s in cost.stages.items()],
            "clip": {"plate_size": [1280, 720], "timestamps": times},
            "settings": settings.to_json(),
        }
        (folder / "capture.json").write_text(json.dumps(capture))
    (tmp_path / "job0" / "capture" / "capture.json").write_text("cut in ha")  # one is damaged
    after = ask()
    assert (before.learned, after.learned) == (0, 2)
    assert after.seconds_low < taken < after.seconds_high
    assert after.seconds_high / after.seconds_low < before.seconds_high / before.seconds_low


def test_stages_that_an_earlier_job_left_teach_nothing():
    cost = Cost({"Flow": 10.0, "Depth": 30.0, "Filling": 2.0}, 2.0, 0)
    assert ratio_of({"Flow": 20.0, "Depth": 60.0, "Filling": 4.0}, cost) == 2.0
    assert ratio_of({"Flow": 0.01, "Depth": 60.0, "Filling": 4.0}, cost) == 2.0
    assert ratio_of({"Flow": 20.0, "Depth": 0.1, "Filling": 4.0}, cost) is None


def test_a_child_that_breaks_is_an_answer_too():
    asides = Asides()
    question = {"settings": 3}
    told = None
    for _ in range(300):
        told = asides.ask("estimate", question)
        if told is not None:
            break
        time.sleep(0.05)
    assert "error of Kinora" in told["message"]
