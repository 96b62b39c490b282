"""Text in panels: Blender does not wrap labels, so lines are measured and broken here."""

from __future__ import annotations

import blf
import bpy

FONT = 0
MARGIN_PX = 56  # what the panel's borders and an icon take, before the interface scale


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
    lines = wrap(text, context.region.width - MARGIN_PX * scale, lambda s: blf.dimensions(FONT, s)[0])
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(lines):
        column.label(text=line, icon=icon if i == 0 else ("BLANK1" if icon != "NONE" else "NONE"))
