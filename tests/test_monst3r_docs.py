"""`docs/monst3r.md` against the code: every option of the original has an answer there, and every answer exists."""

from __future__ import annotations

import dataclasses
import re
from itertools import chain
from pathlib import Path

import pytest

from backend.__main__ import parser
from backend.nets.manifest import models
from backend.wire import ENGINES, ClipSettings, LensSettings, MonST3RSettings
from blender_addon.scene.options import ImportOptions
from tests.doc_tables import known_options, table

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "monst3r.md").read_text(encoding="utf-8")

#: What the original can be told: by its demo's command line, ...
FLAGS = [
    *("input_dir", "input", "output_dir", "seq_name", "model_name", "weights", "device", "image_size", "num_frames"),
    *("fps", "batch_size", "batchify", "not_batchify", "window_wise", "window_size", "window_overlap_ratio"),
    *("prev_output_dir", "prev_output_index", "real_time", "use_gt_davis_masks", "silent", "server_name"),
    *("server_port", "local_network", "share"),
]
#: ... by its evaluation, its viewer, its demo's page, and from Python.
OTHERS = [
    *("no_crop", "no_mask", "init_conf", "downsample", "bg_downsample", "point_size", "camera_size", "conf_thre"),
    *("fg_conf_thre", "niter", "min_conf_thr", "as_pointcloud", "clean_depth", "cam_size", "scene_graph", "winsize"),
    *("refid", "seqK", "cycK", "shared_focal", "flow_loss_weight", "flow_loss_thre", "motion_mask_thre"),
    *("use_self_mask", "preset_pose", "preset_focal", "preset_intrinsics", "preset_depthmap"),
]
#: What has no name of its own.
WORDS = (
    "learning rate schedule",
    "sky mask",
    "scene graph: type",
    "smoothing weight",
    "translation weight",
    "flow loss: start",
    "depth prior weight",
    "SAM 2 refinement",
)


OPTIONS, ORIGINAL, WARNINGS = (
    table(PAGE, f"## {name}") for name in ("Options", "Every option of the original", "What its warnings mean")
)


def test_every_option_of_the_original_has_one_row():
    first = [row[0] for row in ORIGINAL]
    assert all(len(row) == 3 for row in ORIGINAL)
    names = [
        {name.lstrip("-").replace("-", "_"): name.startswith("--") for name in re.findall(r"`([^`]+)`", cell)}
        for cell in first
    ]
    for name in FLAGS + OTHERS:
        assert sum(name in row for row in names) == 1, name
    assert set(chain(*names)) == {*FLAGS, *OTHERS}  # nor does the page name what the list lacks
    assert all(row[name] for name in FLAGS for row in names if name in row)  # they are written as flags
    for words in WORDS:
        assert sum(cell.startswith(words) for cell in first) == 1, words


@pytest.mark.parametrize("row", ORIGINAL, ids=[row[0] for row in ORIGINAL])
def test_the_answer_exists_or_says_why_there_is_none(row):
    _, here, why = row
    answers = re.findall(r"`([^`]+)`", here)
    assert answers or here == "none"
    assert set(answers) <= known_options("monst3r") | {"CLIP"}
    if here == "none":
        assert re.search(r"\bgone\b|\*Import Options > ", why)


def test_the_panel_shows_what_the_table_names():
    groups = (MonST3RSettings, ClipSettings, LensSettings, ImportOptions)
    fields = [f for group in groups for f in dataclasses.fields(group)]
    choices = {row[1] for f in fields for row in f.metadata["choices"]}
    # What is not made from a field of settings, or is the title of a panel.
    others = {"Clip", "Files", "Output", "Known Masks", "Import Options"}
    others |= {"Preferences", "Add-ons", "Kinora", "Another Computer"}
    known = {f.metadata["label"] for f in fields} | choices | others
    named = {part for row in ORIGINAL for path in re.findall(r"\*([^*]+)\*", row[2]) for part in path.split(" > ")}
    assert len(named) > 20
    assert named <= known


def test_every_setting_is_on_the_page_with_its_label_and_default():
    rows = {row[0]: row for row in OPTIONS}
    for f in dataclasses.fields(MonST3RSettings):
        default = {True: "yes", False: "no"}[f.default] if isinstance(f.default, bool) else f.default
        flag = f"`--{f.name.replace('_', '-')}`"
        assert rows.pop(flag)[1:3] == [f.metadata["label"], str(default)], flag
    assert not rows
    for group in (ClipSettings, LensSettings):
        for f in dataclasses.fields(group):
            assert f"`--{f.name.replace('_', '-')}`" in PAGE, f.name


def test_choices_that_the_page_names_exist():
    fields = {f"`--{f.name.replace('_', '-')}`": f for f in dataclasses.fields(MonST3RSettings)}
    for flag, _, _, words in OPTIONS:
        choices = {row[0] for row in fields[flag].metadata["choices"]}
        every = {row[0] for f in fields.values() for row in f.metadata["choices"]}
        named = set(re.findall(r"`([^`-][^`]*)`", words))
        if choices:
            assert named <= choices, flag
        else:
            assert named <= every, flag


def test_every_warning_is_on_the_page_and_every_one_there_is_given():
    code = "".join((ROOT / "backend" / name).read_text(encoding="utf-8") for name in ("monst3r/report.py", "refine.py"))
    for row in WARNINGS:
        assert row[0].strip("`") in code, row[0]
    given = re.findall(r'warnings(?:\.append\(\s*| = \(\*warnings, )f?"([^"]*)"', code)
    assert len(given) > 5
    for words in given:
        assert any(row[0].strip("`") in words for row in WARNINGS), words


def test_it_says_what_may_be_done_with_the_weights():
    info = ENGINES["monst3r"]
    words = " ".join(PAGE.split())
    assert info.licence.replace("-", " ") in words.replace("-", " ")
    assert not info.commercial_use
    assert "not for commercial use" in words


@pytest.mark.parametrize("page", ["README.md", "docs/monst3r.md", "docs/weights.md"])
def test_the_commands_of_the_pages_are_commands(page):
    blocks = re.findall(r"```\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = re.findall(r"^\S*python -m backend ([^#\n]+)", "\n".join(blocks), re.MULTILINE)
    assert lines
    for line in lines:
        words = re.sub(r"\[([^]]*)\]", r"\1", line).split()
        options = parser(words).parse_args(words)  # exits where there is no such command or option
        for name in getattr(options, "names", ()):
            assert name in models()


def test_what_the_page_names_is_there():
    named = set(re.findall(r"`((?:backend|tests|benchmarks)/[\w/.]+)`", PAGE))
    named |= {f"docs/{name}" for name in re.findall(r"\]\((\w+\.md)\)", PAGE)}
    named |= {f"{name.replace('.', '/')}" for name in re.findall(r"python -m ((?:benchmarks|tests)\.\w+)", PAGE)}
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists(), name
    for name in re.findall(r"\(`(\w+\.py)`[,)]", PAGE):
        assert list((ROOT / "backend" / "align").glob(name)), name
