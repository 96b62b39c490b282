"""`docs/mast3r.md` against the code: every option of the original has an answer there, and every answer exists."""

from __future__ import annotations

import dataclasses
import re
from itertools import chain
from pathlib import Path

import pytest

from backend.__main__ import parser
from backend.metric import scale
from backend.nets.manifest import models
from backend.wire import ENGINES, TASKS, ClipSettings, LensSettings, LocaliseSettings, MASt3RSettings
from blender_addon.scene.options import ImportOptions
from tests.doc_tables import known_options, table

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "mast3r.md").read_text(encoding="utf-8")

#: What the original can be told: by its demo's command line, ...
FLAGS = [
    *("weights", "model_name", "device", "image_size", "retrieval_model", "tmp_dir", "gradio_delete_cache"),
    *("server_name", "server_port", "local_network", "share", "silent"),
]
#: ... by its page, and from Python; ...
OTHERS = [
    *("lr1", "niter1", "lr2", "niter2", "matching_conf_thr", "shared_intrinsics", "winsize", "win_cyclic", "refid"),
    *("Na", "k", "seqN", "cycN", "min_conf_thr", "as_pointcloud", "mask_sky", "clean_depth", "transparent_cams"),
    *("cam_size", "TSDF_thresh", "opt_pp", "opt_depth", "subsample", "init", "freeze"),
]
#: ... with words where it has no name; ...
WORDS = (
    "images of the page",
    "a single image",
    "optimisation level",
    "scene graph: type",
    "export to COLMAP",
    "export to GLOMAP",
)
#: ... and by its visual localisation.
LOCALISATION_FLAGS = [
    *("dataset", "weights", "model_name", "device", "confidence_threshold", "pixel_tol", "coarse_to_fine"),
    *("max_image_size", "max_batch_size", "c2f_crop_with_homography", "pnp_mode", "reprojection_error"),
    *("reprojection_error_diag_ratio", "pnp_max_points", "output_dir", "output_label", "viz_matches"),
]
LOCALISATION_WORDS = (
    "images of the map",
    "the query's known intrinsics",
    "the cache of matches",
    "the printed medians",
)
OPTIONS, LOCALISE, WARNINGS, DEMO, LOCALISATION = (
    table(PAGE, f"## {name}")
    for name in (
        "Options",
        "Putting a plate into a capture",
        "What its warnings mean",
        "Every option of the original's demo",
        "Every option of the original's visual localisation",
    )
)


def names_in(rows: list[list[str]]) -> list[dict[str, bool]]:
    """Of each row the names that the original has for it, and whether they are written as flags."""
    return [
        {n.lstrip("-").replace("-", "_"): n.startswith("--") for n in re.findall(r"`([^`]+)`", row[0])} for row in rows
    ]


@pytest.mark.parametrize(
    ("rows", "flags", "others", "words"),
    [(DEMO, FLAGS, OTHERS, WORDS), (LOCALISATION, LOCALISATION_FLAGS, ["topk"], LOCALISATION_WORDS)],
    ids=["demo", "localisation"],
)
def test_every_option_of_the_original_has_one_row(rows, flags, others, words):
    assert all(len(row) == 3 for row in rows)
    names = names_in(rows)
    repeated = {"init"}  # a start has several parts
    for name in {*flags, *others} - repeated:
        assert sum(name in row for row in names) == 1, name
    assert set(chain(*names)) == {*flags, *others}  # nor does the page name what the list lacks
    assert all(row[name] for name in flags for row in names if name in row)  # they are written as flags
    for start in words:
        assert sum(row[0].startswith(start) for row in rows) == 1, start


@pytest.mark.parametrize("row", DEMO + LOCALISATION, ids=lambda row: row[0])
def test_the_answer_exists_or_says_why_there_is_none(row):
    _, here, why = row
    answers = re.findall(r"`([^`]+)`", here)
    assert answers or here == "none"
    assert set(answers) <= known_options("mast3r") | {"CLIP", "CAPTURE", "PLATE"}
    if here == "none":
        assert re.search(r"\bgone\b", why)


def test_the_panel_shows_what_the_tables_name():
    groups = (MASt3RSettings, LocaliseSettings, ClipSettings, LensSettings, ImportOptions)
    fields = [f for group in groups for f in dataclasses.fields(group)]
    choices = {row[1] for f in fields for row in f.metadata["choices"]}
    # What is not made from a field of settings, or is the title of a panel.
    others = {"Clip", "Files", "Output", "Known Masks", "Import Options", "Export", "Localise"}
    others |= {"Preferences", "Add-ons", "Kinora", "Another Computer", "Points"}
    known = {f.metadata["label"] for f in fields} | choices | others
    paths = [path for row in DEMO + LOCALISATION for path in re.findall(r"\*([^*]+)\*", row[2])]
    named = {part for path in paths for part in path.split(" > ")}
    assert len(named) > 20
    assert named <= known


@pytest.mark.parametrize(("settings", "rows"), [(MASt3RSettings, OPTIONS), (LocaliseSettings, LOCALISE)])
def test_every_setting_is_on_the_page_with_its_label_and_default(settings, rows):
    left = {row[0]: row for row in rows}
    for f in dataclasses.fields(settings):
        if f.name == "reference":  # the command line's CAPTURE
            continue
        default = {True: "yes", False: "no"}[f.default] if isinstance(f.default, bool) else f.default
        flag = f"`--{f.name.replace('_', '-')}`"
        assert left.pop(flag)[1:3] == [f.metadata["label"], str(default)], flag
    assert not left


def test_settings_that_all_engines_have_are_named():
    for group in (ClipSettings, LensSettings):
        for f in dataclasses.fields(group):
            assert f"`--{f.name.replace('_', '-')}`" in PAGE, f.name


@pytest.mark.parametrize(("settings", "rows"), [(MASt3RSettings, OPTIONS), (LocaliseSettings, LOCALISE)])
def test_choices_that_the_page_names_exist(settings, rows):
    fields = {f"`--{f.name.replace('_', '-')}`": f for f in dataclasses.fields(settings)}
    every = {row[0] for f in fields.values() for row in f.metadata["choices"]}
    for flag, _, _, words in rows:
        choices = {row[0] for row in fields[flag].metadata["choices"]}
        assert set(re.findall(r"`([^`-][^`]*)`", words)) <= (choices or every), flag


def test_every_warning_is_on_the_page_and_every_one_there_is_given():
    code = (ROOT / "backend" / "mast3r" / "report.py").read_text(encoding="utf-8")
    for row in WARNINGS:
        assert row[0].strip("`") in code, row[0]
    given = re.findall(r'(?:warnings\.append\(\s*|NOT_FOUND = |told = )f?"([^"]*)"', code)
    assert len(given) > 3
    for words in given:
        assert any(row[0].strip("`") in words for row in WARNINGS), words


def test_it_says_what_may_be_done_with_the_weights():
    info = ENGINES["mast3r"]
    words = " ".join(PAGE.split())
    assert info.licence.replace("-", " ") in words.replace("-", " ")
    assert not info.commercial_use
    assert "not for commercial use" in words
    assert "Map-Free" in words
    assert "Map-Free" in models()["mast3r"].note
    assert TASKS["localise"].commercial_use  # one of its ways to match needs no weights
    assert "the other needs no weights" in words


def test_the_limits_of_the_scale_are_those_of_the_code():
    words = " ".join(PAGE.split())
    assert f"(`--frames`, {scale.FRAMES})" in words
    assert parser(["scale", "shot"]).parse_args(["scale", "shot"]).frames == scale.FRAMES
    assert f"fewer than {scale.LEAST_SHARE:.0%}".replace("%", " %") in words
    assert f"to more than {scale.MOST_SPREAD:.0%}".replace("%", " %") in words


def test_the_commands_of_the_page_are_commands():
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    lines = re.findall(r"^python -m backend ([^#\n]+)", "\n".join(blocks), re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        options = parser(line.split()).parse_args(line.split())  # exits where there is no such command or option
        for name in getattr(options, "names", ()):
            assert name in models()


def test_what_the_page_names_is_there():
    named = set(re.findall(r"`((?:backend|tests|benchmarks)/[\w/.]+)`", PAGE))
    named |= {f"docs/{name}" for name in re.findall(r"\]\((\w+\.md)[#)]", PAGE)}
    named |= {f"{name.replace('.', '/')}" for name in re.findall(r"python -m ((?:benchmarks|tests)\.\w+)", PAGE)}
    assert len(named) > 12
    for name in named:
        assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists(), name
    anchors = re.findall(r"\]\(#([\w-]+)\)", PAGE)
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in PAGE.splitlines() if line.startswith("#")}
    assert anchors
    assert set(anchors) <= headings
