"""Text in panels: durations, sentences, and long texts in lines, as Blender does not wrap its labels."""

from __future__ import annotations

import blf
import bpy

FONT = 0
# Before the interface scale: what the tabs, the scroll bar and the borders of a panel and a box take, and an icon.
MARGIN_PX, ICON_PX = 72, 26


def duration(seconds: float) -> str:
    """'40 s', '3 min', '1 h 20 min'."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def wrap(text: str, width_px: float, measure) -> list[str]:
    """`text` in lines no wider than `width_px` by `measure(str) -> px`; words longer than a line are broken."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if measure(longer) <= width_px:
                line = longer
                continue
            if line:
                lines.append(line)
            while measure(word) > width_px and len(word) > 1:
                fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or measure(word[:n]) <= width_px)
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        if line:
            lines.append(line)
    return lines


def draw_wrapped(layout: bpy.types.UILayout, context, text: str, icon: str = "NONE") -> None:
    """Labels that show the whole of `text` in the region that is being drawn; the icon stands before the first line."""
    scale = context.preferences.system.ui_scale
    blf.size(FONT, context.preferences.ui_styles[0].widget.points * scale)
    taken_px = (MARGIN_PX + (ICON_PX if icon != "NONE" else 0)) * scale
    lines = wrap(text, context.region.width - taken_px, lambda s: blf.dimensions(FONT, s)[0])
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(lines):
        column.label(text=line, icon=icon if i == 0 else ("BLANK1" if icon != "NONE" else "NONE"))
