"""Progress and cancellation of one job: stages by their share, in parts, and never backwards."""

import pytest

from backend.run import Progress, Run
from backend.wire import Cancelled


def told(plan, **options) -> tuple[Run, list[Progress]]:
    reports: list[Progress] = []
    return Run(report=reports.append, plan=plan, reports_per_second=1e9, **options), reports


def test_stages_fill_their_share_of_the_plan():
    run, reports = told((("Read", 1.0), ("Solve", 3.0)))
    with run.stage("Read"):
        for _ in run.steps(2):
            pass
    with run.stage("Solve"):
        run.progress(0.5)
    assert [(p.stage, p.stage_fraction, p.fraction) for p in reports] == [
        ("Read", 0.0, 0.0),
        ("Read", 0.0, 0.0),
        ("Read", 0.5, 0.125),
        ("Read", 1.0, 0.25),
        ("Solve", 0.0, 0.25),
        ("Solve", 0.5, 0.625),
        ("Solve", 1.0, 1.0),
    ]


def test_a_stage_entered_in_parts_fills_its_share_part_by_part():
    run, reports = told((("Compare", 0.5), ("Align", 0.5)))
    for _ in range(2):
        with run.stage("Compare", 0.5):
            pass
        with run.stage("Align", 0.4):
            run.progress(0.5)
    with run.stage("Align", 0.2):
        pass
    ends = [(p.stage, round(p.fraction, 9)) for p in reports if p.stage_fraction == 1]
    assert ends == [("Compare", 0.25), ("Align", 0.45), ("Compare", 0.7), ("Align", 0.9), ("Align", 1.0)]
    fractions = [p.fraction for p in reports]
    assert fractions == sorted(fractions)


def test_the_times_of_parts_are_added_up_under_one_name(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("backend.run.time.monotonic", lambda: now[0])
    run, _ = told((("Compare", 1.0),))
    for taken in (2.0, 3.0):
        with run.stage("Compare", 0.5):
            now[0] += taken
        with run.stage("Align"):
            now[0] += 1
    assert run.timings == [("Compare", 5.0), ("Align", 2.0)]


def test_a_stage_that_is_not_in_the_plan_moves_nothing():
    run, reports = told((("Read", 1.0),))
    with run.stage("Something else"):
        run.progress(0.9)
    assert {p.fraction for p in reports} == {0.0}


def test_a_cancelled_run_stops_at_the_next_step_and_before_a_stage():
    answers = iter([False, False, True])
    run = Run(is_cancelled=lambda: next(answers, True))
    seen = []
    with pytest.raises(Cancelled):
        seen.extend(run.steps([10, 20, 30]))
    assert seen == [10, 20]
    with pytest.raises(Cancelled), run.stage("Read"):
        seen.append("never")
    with pytest.raises(Cancelled):
        run.progress(0.5)
    assert seen == [10, 20]


def test_a_stage_that_fails_is_not_counted_as_done():
    run, _ = told((("Read", 1.0),))
    with pytest.raises(ZeroDivisionError), run.stage("Read"):
        1 / 0  # noqa: B018
    assert run.timings == []


def test_reports_are_not_sent_more_often_than_asked_for():
    reports: list[Progress] = []
    run = Run(report=reports.append, plan=(("Read", 1.0),), reports_per_second=0.001)
    with run.stage("Read"):
        for _ in run.steps(1000):
            pass
    assert [p.stage_fraction for p in reports] == [0.0, 1.0]  # a stage's start and end always
