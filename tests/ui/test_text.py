"""Long texts stay whole in narrow panels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_addon.ui.text import duration, sentence, wrap

WORDS = st.lists(st.text(st.characters(codec="ascii", categories=["L", "P"]), min_size=1, max_size=30), max_size=20)


@given(WORDS, st.integers(1, 40))
def test_wrapping_loses_nothing_and_keeps_to_the_width(words, width):
    lines = wrap(" ".join(words), width, len)
    assert all(0 < len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(words)


def test_words_stay_whole_where_they_fit():
    assert wrap("re-encode the clip as H.264", 12, len) == ["re-encode", "the clip as", "H.264"]
    assert wrap("/a/very/long/path.mp4 is gone", 10, len) == ["/a/very/lo", "ng/path.mp", "4 is gone"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (40.4, "40 s"), (59.6, "1 min"), (95, "2 min"), (3599, "1 h 0 min"), (4800, "1 h 20 min")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_sentences_start_with_a_capital():
    assert (sentence("use H.264"), sentence("")) == ("Use H.264", "")
