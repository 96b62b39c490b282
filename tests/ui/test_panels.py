"""Every panel draws in every state, with nothing but what this Blender's layouts know, and says what it must.

A Blender without a window never draws, so panels draw into a recorder that takes only calls, keywords, icons and
properties that Blender's own type information has.
"""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

from blender_addon.client import Answered, JobProgress
from blender_addon.ui import clip_look, panels, setup, setup_panel
from blender_addon.ui.preferences import KINORA_AP_preferences
from blender_addon.ui.reconstruction import Reconstruction, SceneRef
from blender_addon.wire.facts import ClipFacts, Estimate
from blender_addon.wire.settings import JobSettings

FUNCTIONS = bpy.types.UILayout.bl_rna.functions
PROPERTIES = bpy.types.UILayout.bl_rna.properties


def _check_kind(parameter, value) -> None:
    """Blender takes no number of NumPy's for a flag, and nothing but text for a text."""
    kinds = {"BOOLEAN": (bool, int), "STRING": (str,), "INT": (int,)}.get(parameter.type)
    assert kinds is None or value is None or isinstance(value, kinds), f"{parameter.identifier}: {value!r}"


class Recorder:
    """Stands for a UILayout; `seen` collects texts, labels of properties and names of operators."""

    def __init__(self, seen: list[str]) -> None:
        object.__setattr__(self, "seen", seen)

    def __setattr__(self, name, value) -> None:
        assert name in PROPERTIES, f"UILayout has no {name}"
        _check_kind(PROPERTIES[name], value)

    def __getattr__(self, name):
        if name in PROPERTIES:  # what another module adds to a panel is drawn by Blender, which reads some
            return PROPERTIES[name].default
        parameters = FUNCTIONS[name].parameters

        def call(*args, **keywords):
            names = [p.identifier for p in parameters if not p.is_output]
            given = dict(zip(names, args)) | keywords
            assert set(given) <= set(names), f"UILayout.{name} takes no {set(given) - set(names)}"
            for key, value in given.items():
                _check_kind(parameters[key], value)
            for key in {"icon", "type"} & set(given):
                assert given[key] in parameters[key].enum_items, given[key]
            if name == "prop":
                custom = given["property"].startswith('["')  # an input of a modifier, before Blender 5.2
                known = [f'["{key}"]' for key in given["data"].keys()] if custom else given["data"].bl_rna.properties  # noqa: SIM118
                assert given["property"] in known, given["property"]
                if not custom:
                    given.setdefault("text", known[given["property"]].name)
            if name == "operator":
                group, _, function = given["operator"].partition(".")
                operator = getattr(getattr(bpy.ops, group), function).get_rna_type()
                self.seen.append(f"[{given.get('text', operator.name)}]")
                return SimpleNamespace()
            if given.get("text"):
                self.seen.append(given["text"])
            layout = Recorder(self.seen)
            return (layout, layout) if name in ("panel", "panel_prop") else layout  # its header, and what is in it

        return call


def in_sidebar():
    """The context of a 3D view's sidebar."""
    window = bpy.context.window_manager.windows[0]
    area = next(a for a in window.screen.areas if a.type == "VIEW_3D")
    region = next(r for r in area.regions if r.type == "UI")
    return bpy.context.temp_override(window=window, area=area, region=region)


@pytest.fixture
def draw(scene, session):
    """Draw every panel that shows itself, in a sidebar; the texts in order, as one string."""

    def everything() -> str:
        seen: list[str] = []
        with in_sidebar():
            for cls in panels.CLASSES:
                if not hasattr(cls, "poll") or cls.poll(bpy.context):
                    seen.append(f"# {cls.bl_label}")
                    cls.draw(SimpleNamespace(layout=Recorder(seen)), bpy.context)
        return " ".join(seen)

    return everything


@pytest.fixture
def job(scene, session):
    """Make the scene's job look like this."""

    def make(**state) -> Reconstruction:
        made = Reconstruction(SceneRef.of(scene), Path("street.mp4"), Path("out"), JobSettings(), **state)
        session.jobs = [made]
        return made

    return make


def squeezed(text: str) -> str:
    """Without spaces: a sidebar without a window is one pixel wide, so long texts are broken at every letter."""
    return "".join(text.split())


def test_a_fresh_panel_offers_to_start(draw):
    text = draw()
    assert "Backend not running [Start]" in text
    assert "ClipEngineGPL-3.0-or-later,commercialuseOK[Reconstruct]" in squeezed(text)
    assert "[Import Capture]" in text


def test_every_setting_is_shown_once(draw, scene):
    text = draw()
    for label in (
        "First Frame",
        "Resolution",
        "Focal Length",
        "Distortion K1",
        "Find Movers",
        "Known Masks",
        "Up Axis",
    ):
        assert text.count(label) == 1, label


def test_a_running_job_shows_stage_percentage_time_left_and_cancel(draw, job, session):
    session.state = "READY"
    job(state="RUNNING", stage="Depth", stage_fraction=0.75, fraction=0.4, eta_s=95.0)
    text = draw()
    assert "Backend ready [Stop]" in text
    assert "40%, 2 min left [] Depth, 75%" in text
    assert "[Reconstruct]" not in text


@pytest.mark.parametrize("state", ["WAITING", "QUEUED", "CANCELLING", "IMPORTING"])
def test_whatever_a_job_waits_for_is_said(draw, job, state):
    made = job(state=state)
    assert made.status in draw()


def test_an_error_is_shown_whole_with_its_hint(draw, job):
    job(state="FAILED", message="no frames could be decoded", hint="re-encode the clip as H.264")
    text = squeezed(draw())
    assert "Noframescouldbedecoded" in text
    assert "Re-encodetheclipasH.264" in text
    assert "[CopyReport]" in text


def test_a_lost_connection_says_why(draw, session):
    session.state, session.note, session.hint = "LOST", "the backend does not answer", "check that it runs"
    text = squeezed(draw())
    assert "Thebackenddoesnotanswer" in text
    assert "Checkthatitruns" in text


def test_how_long_the_connection_is_lost_and_that_it_is_tried_again_is_said(draw, session):
    session.state, session.note, session.lost_at = "LOST", "the line is cut", time.monotonic() - 130
    assert "Triedagaineveryfewseconds,for2minnow" in squeezed(draw())


def test_a_backend_that_was_restarted_says_that_its_jobs_go_on(draw, session):
    """Another run of the same backend answers; after a minute that is no news any more."""
    hello = {"server": "kinora", "gpu": "", "limits": {}, "same_host": False}
    session._backend = SimpleNamespace(
        connection=SimpleNamespace(server_public_key="key"), client=SimpleNamespace(aside=lambda work: None)
    )
    for instance in ("a" * 32, "a" * 32):
        session._connected({**hello, "instance": instance})
        assert "restarted" not in draw()
    session._connected({**hello, "instance": "b" * 32})
    assert "Thebackendwasrestarted;itsjobsgoon" in squeezed(draw())
    session.restarted_at -= 61
    assert "restarted" not in squeezed(draw())
    session._backend = None


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (
            JobProgress("t", "Sending the clip", 0.5, 0.0, None, 1_234_567, 2_469_134, 3.2e6),
            "1.2 MB of 2.5 MB, 3.2 MB/s",
        ),
        (JobProgress("t", "Sending the clip", 0.0, 0.0, None, 0, 12_000_000_000), "0 kB of 12 GB"),
        (JobProgress("t", "Looking", 0.5, 0.2, None), ""),
    ],
)
def test_what_is_sent_and_fetched_is_told_in_bytes_and_how_fast(draw, job, session, moved, words):
    made = job(state="RUNNING", ticket="t", server_job="1", where="NVIDIA H200 on farm-3")
    session._apply(replace(moved, where="NVIDIA H200 on farm-3"))
    assert made.transfer == words
    text = draw()
    assert f"{moved.stage}, {moved.stage_fraction:.0%} {words}".strip() in text
    assert "On NVIDIA H200 on farm-3" in text


def test_a_job_at_a_backend_that_was_left_says_that_it_goes_on(draw, job):
    job(state="AWAY", server_job="1")
    assert "Thejobgoesonatthebackend;connecttoseeitagain" in squeezed(draw())


def test_a_finished_capture_shows_how_good_it_is(draw, job, capture_folder, scene):
    job(state="DONE", folder=capture_folder)
    text = draw()
    assert "Frames Solved 4 of 4 Solve Error 0.00 px Solvers Differ 0.0% of path" in text
    assert "[Import]" in text
    assert "Points" not in text.partition("Import Options")[0]
    bpy.ops.kinora.import_capture(directory=str(capture_folder), storage="frames")
    # 4 frames of 48 x 32 pixels, all of them measured
    assert "Points 6,144" in draw()


def test_a_capture_that_is_gone_says_so(draw, scene, tmp_path):
    scene.kinora.capture_path = str(tmp_path / "gone")
    assert "isnotacapture" in squeezed(draw())


def test_an_output_folder_that_cannot_be_said_yet_is_explained(draw, scene):
    scene.kinora.output_path = "//shot"
    assert "whichisnotsavedyet" in squeezed(draw())


def test_preferences_draw_for_both_kinds_of_backend(scene):
    for kind, expected in (("LOCAL", "Backend Folder"), ("REMOTE", "Result Encoding")):
        seen: list[str] = []
        rna = KINORA_AP_preferences.bl_rna
        owner = SimpleNamespace(layout=Recorder(seen), backend=kind, remote_backend="", bl_rna=rna)
        with in_sidebar():
            KINORA_AP_preferences.draw(owner, bpy.context)
        assert expected in seen
        assert "[Start]" in seen
        assert ("Set Up Backend" in " ".join(seen)) == (kind == "LOCAL")
        assert ("[List Weights]" in seen) == (kind == "LOCAL")


def test_preferences_show_what_is_being_installed(scene, home, tmp_path):
    """Its last lines, how far it is, and Cancel; then how it ended, with its log."""
    child = SimpleNamespace(title="Setting up", running=True, fraction=0.5, lines=["installing torch"], error="")
    setup.work().long = child
    setup.work().findings = [("ok", "numpy", "2.3"), ("!!", "disk", "1 GiB free"), ("ok", "device", "CPU")]

    def drawn() -> str:
        seen: list[str] = []
        with in_sidebar():
            setup_panel.draw_setup(Recorder(seen), bpy.context)
        return " ".join(seen)

    assert "Setting up [] installing torch" in drawn()
    assert "Disk:1GiBfreeDevice:CPU" in squeezed(drawn())
    assert "numpy" not in drawn()
    child.running, child.cancelled, child.error = False, False, "the disk is full"
    assert "Thediskisfull" in squeezed(drawn())
    setup.work().long = None


def test_weights_are_shown_with_what_is_here_and_what_may_be_got(scene):
    row = {"name": "monst3r", "title": "MonST3R", "size": "2.3 GB", "commercial_use": False, "here": False, "page": ""}
    setup.work().weights = [row, {**row, "title": "RAFT", "commercial_use": True, "here": True}]
    seen: list[str] = []
    with in_sidebar():
        setup_panel.draw_weights(Recorder(seen), bpy.context, remote=False)
    text = " ".join(seen)
    assert "MonST3R, 2.3 GB, no commercial use [Get] RAFT, 2.3 GB Here" in text


def facts(**changes) -> ClipFacts:
    whole = ClipFacts("video", 1920, 1080, Fraction(24000, 1001), 240, 0, "h264", False, True, True)
    return replace(whole, **changes)


def test_a_clip_is_shown_before_it_is_sent(draw, scene):
    scene.kinora.facts.show(Path("street.mp4"), facts(variable_frame_rate=True, warnings=("The frame rate varies",)))
    scene.kinora.clip.last_frame = 119
    text = draw()
    assert "1920 × 1080 23.976 fps on average, h264 240 frames, 10.0 s" in text
    assert "Theframeratevaries" in squeezed(text)
    assert "120 of 240 frames, 5.0 s [Use Scene Range]" in text


def test_what_a_job_would_take_is_shown_and_why_it_would_not_end_well(draw, scene, session, monkeypatch):
    scene.kinora.facts.show(Path("street.mp4"), facts())
    found = Estimate(240, 65.0, 190.0, 1_500_000_000, 24_000_000_000)
    monkeypatch.setattr(clip_look, "estimate_of", lambda scene: Answered("", found))
    assert "Takes 1 to 3 min 1.5 GB of memory, 24 GB free" in draw()
    found = replace(found, problem="it needs 30.0 GB of memory, and 24.0 GB are free", hint="lower Resolution")
    assert "Itneeds30.0GBofmemory,and24.0GBarefreeLowerResolution" in squeezed(draw())


def test_weights_that_measure_the_scale_are_told_beside_an_engine_that_is_free(draw, scene):
    told = "MetricScalebyweightsfornocommercialuse"
    assert told not in squeezed(draw())
    scene.kinora.engine_classical.metric_scale = "mast3r"
    assert told in squeezed(draw())
    scene.kinora.engine = "monst3r"  # which says so of itself
    scene.kinora.engine_monst3r.metric_scale = "mast3r"
    assert told not in squeezed(draw())
    scene.kinora.engine = "mast3r"
    assert told not in squeezed(draw())
