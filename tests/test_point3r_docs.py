"""`docs/point3r.md` against the code: every command of the original has an answer there, and every answer exists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from backend.__main__ import parser
from backend.cli.options import settings_of
from backend.evaluation.benchmarks import BENCHMARKS, SUITES
from backend.nets.manifest import models
from backend.point3r.models import fusion_of
from backend.point3r.placing import MIN_FITTING
from backend.streaming.fusion import ORIGINAL, OURS
from backend.wire import ENGINES, ClipSettings, LensSettings, Point3RSettings
from tests.doc_tables import known_options, table

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "point3r.md").read_text(encoding="utf-8")
OPTIONS, WARNINGS, ORIGINALS = (
    table(PAGE, f"## {name}") for name in ("Options", "What its warnings mean", "The original's commands")
)
#: What the original can be told, its scripts and what they write (facts sheet, section 9).
SCRIPTS = [f"eval/{name}/run.sh" for name in ("monodepth", "video_depth", "relpose", "mv_recon")]
FLAGS = ["--weights", "--output_dir", "--eval_dataset", "--size", "--revisit", "--solve_pose", "--pose_eval_stride"]
FILES = ["frame_XXXX.npy", "frame_XXXX.png", "pred_traj.txt", "pred_focal.txt", "pred_intrinsics.txt", ".npy", ".ply"]
TRAINING = ["src/train.py", "config/*.yaml"]


def test_every_command_of_the_original_has_one_row():
    assert all(len(row) == 3 for row in ORIGINALS)
    names = [re.findall(r"`([^`]+)`", row[0]) for row in ORIGINALS]
    assert sorted(name for row in names for name in row) == sorted([*SCRIPTS, *FLAGS, *FILES, *TRAINING])


def evaluation_options() -> set[str]:
    suites = (parser(["evaluate", "--suite", suite]) for suite in SUITES)
    (commands,) = (action for action in next(suites)._actions if action.choices and "evaluate" in action.choices)
    return {option for action in commands.choices["evaluate"]._actions for option in action.option_strings}


@pytest.mark.parametrize("row", ORIGINALS, ids=lambda row: row[0])
def test_the_answer_exists_or_says_why_there_is_none(row):
    _, here, why = row
    answers = re.findall(r"`([^`]+)`", here)
    assert answers or here == "none"
    for answer in answers:
        option, _, value = answer.partition(" ")
        assert option in known_options("point3r") | evaluation_options()
        assert option != "--suite" or value in SUITES
    if here == "none":
        assert re.search(r"\bgone\b", why)


def test_the_benchmarks_of_each_suite_are_those_of_the_code():
    suites = {row[1].strip("`").split()[1]: row[2] for row in ORIGINALS if "--suite" in row[1]}
    assert set(suites) == set(SUITES)
    for suite, words in suites.items():
        named = set(re.findall(r"`(\w+)`", words)) - {"evaluate"}
        assert named == {name for name, about in BENCHMARKS.items() if suite in about.suites}, suite


def test_every_setting_is_on_the_page_with_its_label_and_default():
    rows = {row[0]: row for row in OPTIONS}
    for f in dataclasses.fields(Point3RSettings):
        default = {True: "yes", False: "no"}[f.default] if isinstance(f.default, bool) else f.default
        flag = f"`--{f.name.replace('_', '-')}`"
        assert rows.pop(flag)[1:3] == [f.metadata["label"], str(default)], flag
    assert not rows
    for group in (ClipSettings, LensSettings):
        for f in dataclasses.fields(group):
            assert f"`--{f.name.replace('_', '-')}`" in PAGE, f.name


def test_choices_that_the_page_names_exist():
    fields = {f"`--{f.name.replace('_', '-')}`": f for f in dataclasses.fields(Point3RSettings)}
    for flag, _, _, words in OPTIONS:
        choices = {row[0] for row in fields[flag].metadata["choices"]}
        assert set(re.findall(r"`([^`-][^`]*)`", words)) <= choices, flag


def test_the_settings_as_published_are_the_original_method():
    """The memory is the original's; what is left is a switch that is off, and the network's word on cameras."""
    line = re.search(r"### As published.*?^python -m backend ([^\n]+)", PAGE, re.DOTALL | re.MULTILINE)[1].split()
    settings = settings_of(parser(line).parse_args(line)).engine_settings
    assert fusion_of(settings) == ORIGINAL
    assert (settings.cameras, settings.precision, settings.flow) == ("network", "exact", "none")
    on = [f.name for f in dataclasses.fields(settings) if getattr(settings, f.name) is True]
    assert on == []
    assert fusion_of(Point3RSettings()) == OURS


def test_every_warning_is_on_the_page_and_every_one_there_is_given():
    code = "".join((ROOT / "backend" / name).read_text(encoding="utf-8") for name in ("point3r/report.py", "refine.py"))
    for row in WARNINGS:
        assert row[0].strip("`") in code, row[0]
    given = re.findall(r'warnings(?:\.append\(\s*| = \(\*warnings, )f?"([^"]*)"', code)
    assert len(given) > 2
    for words in given:
        assert any(row[0].strip("`") in words for row in WARNINGS), words
    assert MIN_FITTING == 0.5  # "with fewer than half placed the job fails"


def test_it_says_what_may_be_done_with_the_weights():
    info = ENGINES["point3r"]
    words = " ".join(PAGE.split())
    assert info.licence.replace("-", " ") in words.replace("-", " ")
    assert not info.commercial_use
    assert "not for commercial use" in words
    (file,) = models()["point3r"].files
    assert f"`{file.name}`, {file.about_bytes / 1e9:.1f} GB" in words
    assert models()["point3r"].page.removeprefix("https://") in PAGE


@pytest.mark.parametrize("page", ["docs/point3r.md", "docs/evaluation.md"])
def test_the_commands_of_the_pages_are_commands(page):
    blocks = re.findall(r"```\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = re.findall(r"^python -m backend ([^#\n]+)", "\n".join(blocks), re.MULTILINE)
    assert len(lines) > 1
    for line in lines:
        options = parser(line.split()).parse_args(line.split())  # exits where there is no such command or option
        for name in getattr(options, "names", ()):
            assert name in models()


@pytest.mark.parametrize("page", ["docs/point3r.md", "docs/evaluation.md"])
def test_what_the_pages_name_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:backend|tests|benchmarks)/[\w/.]+)`", text))
    named |= {name.replace(".", "/") for name in re.findall(r"python -m ((?:benchmarks|tests)\.\w+)", text)}
    assert named
    for name in named:
        assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists(), name
    for linked, anchor in re.findall(r"\]\((\w+\.md)(?:#([\w-]+))?\)", text):
        target = (ROOT / "docs" / linked).read_text(encoding="utf-8")
        headings = {line.lstrip("# ").lower().replace(" ", "-") for line in target.splitlines() if line[:1] == "#"}
        assert not anchor or anchor in headings, (linked, anchor)


# docs/evaluation.md

EVALUATION = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_every_benchmark_and_suite_is_on_the_page_with_its_frames():
    rows = {row[0].strip("`"): row for row in table(EVALUATION, "## Where benchmarks lie")}
    assert list(rows) == list(BENCHMARKS)
    for name, about in BENCHMARKS.items():
        words = rows[name][1]
        assert set(re.findall(r"`([\w-]+)`", words)) == set(about.suites), name
        for chosen in about.suites.values():
            for number in filter(None, (chosen.first, chosen.most)):
                assert str(number) in words, (name, number)
            ordinal = {1: "", 3: "every third"}.get(chosen.every, f"every {chosen.every}th")
            assert ordinal in words, name
        far = re.search(r"up to (\d+) m", words)
        assert (float(far[1]) if far else float("inf")) == about.max_depth, name
    assert [row[0].strip("`") for row in table(EVALUATION, "## What is measured")] == list(SUITES)
    bonn = BENCHMARKS["bonn"].suites["video-depth"].sequences
    assert all(name in rows["bonn"][1] for name in bonn)
    assert len(BENCHMARKS["sintel"].suites["pose"].sequences) == 14


def test_every_option_of_a_suite_is_on_the_page():
    named = {row[0].strip("`") for row in table(EVALUATION, "## Benchmarks")}
    assert named <= evaluation_options()
    engine = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(ENGINES["classical"].settings)}
    shared = {f"--{f.name.replace('_', '-')}" for g in (ClipSettings, LensSettings) for f in dataclasses.fields(g)}
    switches = {f"--no-{name[2:]}" for name in engine}
    left = evaluation_options() - named - engine - switches - shared
    assert left == {"-h", "--help", "--device", "--no-cache"}
