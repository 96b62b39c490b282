"""Text in panels: durations, sentences, and long texts in lines, as Blender does not wrap its labels."""

from __future__ import annotations

from fractions import Fraction

import blf
import bpy

FONT = 0
# Before the interface scale: what the tabs, the scroll bar and the borders of a panel and a box take, and an icon.
MARGIN_PX, ICON_PX = 72, 26


def duration(seconds: float, exact: bool = False) -> str:
    """'40 s', '3 min', '1 h 20 min'; exact ones have tenths of a second below a minute: '2.5 s'."""
    if exact and seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def span(low_s: float, high_s: float) -> str:
    """'1 to 3 min', '40 s to 2 min', 'about 2 min' where both ends read the same; single seconds are not claimed."""
    low, high = (duration(5 * round(s / 5) if 10 <= s < 60 else s) for s in (low_s, high_s))
    if low == high:
        return f"about {low}"
    number, _, unit = low.partition(" ")
    same = unit == high.partition(" ")[2] and " " not in unit
    return f"{number} to {high}" if same else f"{low} to {high}"


def rate(fps: Fraction) -> str:
    """'24', '23.976', '29.97'."""
    return f"{float(fps):.3f}".rstrip("0").rstrip(".")


def gigabytes(count: int) -> str:
    """'0.4 GB', '24 GB'."""
    return f"{count / 1e9:.1f} GB" if count < 9.95e9 else f"{count / 1e9:.0f} GB"


def size(count: int) -> str:
    """'12 kB', '3.4 MB', '24 GB'."""
    for unit, worth in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * worth:
            return f"{count / worth:.1f} {unit}" if count < 9.95 * worth else f"{count / worth:.0f} {unit}"
    return f"{count / 1e3:.0f} kB"


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


def draw_wrapped(
    layout: bpy.types.UILayout, context, text: str, icon: str = "NONE", width_px: float | None = None
) -> None:
    """Labels that show the whole of `text` in the region that is being drawn; the icon stands before the first line.

    `width_px`, before the interface scale, is that of a dialog, which is no region.
    """
    scale = context.preferences.system.ui_scale
    blf.size(FONT, context.preferences.ui_styles[0].widget.points * scale)
    taken_px = (MARGIN_PX + (ICON_PX if icon != "NONE" else 0)) * scale
    whole_px = context.region.width if width_px is None else width_px * scale
    lines = wrap(text, whole_px - taken_px, lambda s: blf.dimensions(FONT, s)[0])
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(lines):
        column.label(text=line, icon=icon if i == 0 else ("BLANK1" if icon != "NONE" else "NONE"))
