"""How the backend's set-up, its check and the weights are drawn in the preferences."""

from __future__ import annotations

import bpy

from ..installer import Child
from .setup import work
from .text import draw_wrapped, sentence

LINES_SHOWN = 8
SHOWN_FINDINGS = ("torch", "device", "disk")
FINDING_ICONS = {"ok": "BLANK1", "--": "INFO", "!!": "ERROR"}


def draw_setup(layout, context) -> None:
    """Whether a backend is installed, the buttons that install and check it, and what came of them."""
    now = work()
    row = layout.row(align=True)
    there = now.installed
    row.label(text="Installed" if there else "Not installed", icon="CHECKMARK" if there else "ERROR")
    row.operator("kinora.setup_backend", text="Update Backend" if there else "Set Up Backend", icon="IMPORT")
    if there:
        row.operator("kinora.examine", icon="VIEWZOOM")
    if not bpy.app.online_access:
        draw_wrapped(layout, context, "Allow Online Access in System > Network to install or download", icon="INFO")
    if now.long is not None:
        draw_work(layout, context, now.long)
    draw_findings(layout, context, now.findings)


def draw_findings(layout, context, findings: list[tuple[str, str, str]]) -> None:
    """What is wrong, or that nothing is; what is worth knowing; and what the backend computes with."""
    if not findings:
        return
    if all(mark != "!!" for mark, _, _ in findings):
        layout.label(text="Everything that the backend needs is here", icon="CHECKMARK")
    for mark, name, text in findings:
        if mark != "ok" or name in SHOWN_FINDINGS:
            column = layout.column(align=True)
            column.alert = mark == "!!"
            draw_wrapped(column, context, f"{sentence(name)}: {text}", icon=FINDING_ICONS[mark])


def draw_work(layout, context, child: Child) -> None:
    """The log of a work as it grows, with its progress, and how it ended."""
    box = layout.box()
    row = box.row(align=True)
    if child.running:
        row.progress(factor=child.fraction or 0.0, type="BAR", text=child.title)
        row.operator("kinora.setup_cancel", text="", icon="X")
    else:
        row.label(text=child.title, icon="ERROR" if child.error else "CHECKMARK")
        row.operator("kinora.copy_setup_log", text="", icon="COPYDOWN")
    column = box.column(align=True)
    column.scale_y = 0.75
    for line in list(child.lines)[-LINES_SHOWN:]:
        column.label(text=line)
    if child.error and not child.running:
        alert = box.column()
        alert.alert = not child.cancelled
        draw_wrapped(alert, context, sentence(child.error), icon="INFO" if child.cancelled else "ERROR")


def draw_weights(layout, context, remote: bool) -> None:
    """The weights that engines use, with what is here and a button that gets the rest."""
    layout.label(text="Weights of the Learned Engines")
    if remote:
        draw_wrapped(
            layout,
            context,
            "They belong on the backend's computer. Run there: python -m backend weights get monst3r raft_large",
            icon="INFO",
        )
        return
    now = work()
    if not now.weights:
        row = layout.row()
        row.enabled = "weights" not in now.looks
        row.operator("kinora.list_weights", icon="FILE_REFRESH")
        if now.note:
            draw_wrapped(layout, context, sentence(now.note), icon="ERROR")
        return
    column = layout.column(align=True)
    for entry in now.weights:
        row = column.row(align=True)
        text = f"{entry['title']}, {entry['size']}" + ("" if entry["commercial_use"] else ", no commercial use")
        row.label(text=text, icon="CHECKMARK" if entry["here"] else "BLANK1")
        right = row.row()
        right.alignment = "RIGHT"
        if entry["here"]:
            right.label(text="Here")
        elif entry["page"]:
            right.operator("wm.url_open", text="Page", icon="URL").url = entry["page"]
        else:
            right.operator("kinora.get_weights", text="Get", icon="IMPORT").name = entry["name"]
