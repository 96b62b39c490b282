"""The look at a clip before it is sent: picture, facts, the frames that are used, and what the job would take."""

from __future__ import annotations

from pathlib import Path

import bpy
import bpy.utils.previews

from ..wire.errors import UserError
from ..wire.facts import Estimate
from . import session
from .asking import WhatCost
from .facts import IMAGE_SUFFIXES, lines, used_frames
from .text import draw_wrapped, duration, gigabytes, sentence, span

THUMBNAIL_SCALE = 3.0

_thumbnails = None


def thumbnail(clip: Path, is_video: bool) -> int:
    """The icon of a clip, which Blender's own preview job makes; 0 where there is none, as without a window.

    The disk is looked at once for each clip, not whenever the panel is drawn.
    """
    if _thumbnails is None or bpy.app.background:
        return 0
    if str(clip) not in _thumbnails:
        picture = clip
        if clip.is_dir():
            picture = min((p for p in clip.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), default=clip)
        _thumbnails.load(str(clip), str(picture), "MOVIE" if is_video else "IMAGE")
    return _thumbnails[str(clip)].icon_id


def draw_clip(layout, context, settings) -> None:
    """The clip's picture beside its facts, and what is unusual about it."""
    facts = settings.facts.read()
    if facts is None:
        return
    row = layout.row()
    icon = thumbnail(Path(settings.facts.of), facts.kind == "video")
    if icon:
        picture = row.column()
        picture.template_icon(icon_value=icon, scale=THUMBNAIL_SCALE)
    column = row.column(align=True)
    column.scale_y = 0.85
    for line in lines(facts):
        column.label(text=line)
    if settings.facts.problem:
        alert = layout.column()
        alert.alert = True
        draw_wrapped(alert, context, sentence(settings.facts.problem), icon="ERROR")
    for warning in facts.warnings:
        draw_wrapped(layout, context, warning, icon="ERROR" if "varies" in warning else "INFO")


def draw_range(layout, context, settings) -> None:
    """How many frames the range takes, and the button that takes the scene's."""
    facts = settings.facts.read()
    if facts is not None and facts.frames:
        clip = settings.clip
        used = used_frames(facts, clip.first_frame, clip.last_frame, clip.frame_step)
        seconds = float(used * clip.frame_step / facts.fps)
        row = layout.row()
        row.alert = used < 3
        row.label(text=f"{used} of {facts.frames} frames, {duration(seconds, exact=True)}", icon="TIME")
    layout.operator("kinora.use_scene_range")


def question_of(scene: bpy.types.Scene) -> WhatCost | None:
    """What to ask of the backend to know what the scene's job would take; None while the clip is not known."""
    facts = scene.kinora.facts.read()
    if facts is None or not facts.frames:
        return None
    try:
        settings = scene.kinora.job_settings()
    except UserError:  # Reconstruct says it
        return None
    return WhatCost(settings, facts.width, facts.height, facts.frames, float(facts.fps))


def estimate_of(scene: bpy.types.Scene):
    """What the connected backend says the scene's job would take, as Answered; None until it has said so."""
    now, question = session.current(), question_of(scene)
    return now.asking.answer(question) if question is not None and now.state == "READY" else None


def draw_estimate(layout, context, scene) -> None:
    """What the job would take, before it is sent; red where it would not end well."""
    answered = estimate_of(scene)
    if answered is None:
        if session.current().state == "READY" and question_of(scene) is not None:
            layout.label(text="Estimating", icon="TIME")
        return
    found = answered.answer
    if not isinstance(found, Estimate):  # an older backend, for example: no reason to hold anybody up
        return
    if found.seconds_high:
        column = layout.column(align=True)
        column.label(text=f"Takes {span(found.seconds_low, found.seconds_high)}", icon="TIME")
        column.label(text=memory(found), icon="MEMORY")
    if found.problem:
        alert = layout.column()
        alert.alert = True
        draw_wrapped(alert, context, sentence(found.problem), icon="ERROR")
        if found.weights and not session.current().choice.remote:
            layout.operator("kinora.open_preferences", text="Get Weights", icon="PREFERENCES")
        elif found.hint:
            draw_wrapped(layout, context, sentence(found.hint), icon="BLANK1")


def memory(found: Estimate) -> str:
    """'1.5 GB of memory, 24 GB free', and the graphics card's where one works."""
    text = f"{gigabytes(found.memory_bytes)} of memory, {gigabytes(found.memory_free)} free"
    if found.gpu_bytes is not None and found.gpu_free is not None:
        text += f"; card {gigabytes(found.gpu_bytes)}, {gigabytes(found.gpu_free)} free"
    return text


def register() -> None:
    global _thumbnails
    _thumbnails = bpy.utils.previews.new()


def unregister() -> None:
    global _thumbnails
    bpy.utils.previews.remove(_thumbnails)
    _thumbnails = None
