"""`docs/security.md` against the tests: each promise names one that exists, and limits are those of the code."""

import re

import pytest

from backend.server import limits
from backend.wire import framing

from .test_architecture import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_it_names_exists(file, test):
    assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8")


def test_it_names_the_tests_of_the_attacks():
    attacks = (ROOT / "tests" / "backend" / "test_security.py").read_text(encoding="utf-8")
    accounts = attacks.index("# The accounts")
    assert set(re.findall(r"\ndef (test_\w+)\(", attacks[:accounts])) <= {test for _, test in NAMED}


def test_the_limits_it_states_are_those_of_the_code():
    for number, words in (
        (limits.CONNECTIONS, "room for ({})"),
        (limits.CONNECTIONS_OWNER, "| {} |"),
        (limits.FLIGHT_OWNER // 2**20, "{} MiB on the way to a client"),
        (limits.FLIGHT_ALL // 2**20, "{} MiB to all"),
        (limits.UNFINISHED // 2**20, "| {} MiB, looked at"),
        (limits.MESSAGE // 2**20, "| 1 MiB, {} MiB |"),
        (round(limits.RATE), "| {} a second"),
        (framing.DEPTH_MAX, "| {} deep"),
        (framing.HEADER_MAX // 1024, "{} KiB |"),
    ):
        assert words.format(number) in PAGE
    assert f"{framing.VALUES_MAX:,}".replace(",", " ") in PAGE
