"""Versions: what an add-on says of its own at hello, and whether a backend and an add-on are too far apart.

A hello has the same fields in every version of the protocol, so that a side of any age can be told; what is new goes
into its `caps`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .capture import SCHEMA
from .messages import PROTOCOL_OLDEST, PROTOCOL_VERSION

READS = re.compile(r"capture-(\d{1,3})")


def reads_captures(schema: int = SCHEMA) -> str:
    """The cap by which a client says up to which schema it reads captures."""
    return f"capture-{schema}"


def disagreement(server: str, client: str, ver_min: int, ver_max: int, caps: Sequence[str]) -> tuple[str, str] | None:
    """Why a backend named `server` cannot work with a client that said this at hello, and what to do; None if it can.

    A client that says nothing of captures does not read any.
    """
    client = client or "add-on"
    if ver_max < PROTOCOL_OLDEST:
        words = f"The add-on ({client}) is too old for this backend ({server}): it speaks protocol {ver_max}"
        return f"{words}, not {PROTOCOL_OLDEST}", "update the add-on"
    if ver_min > PROTOCOL_VERSION:
        words = f"This backend ({server}) is too old for the add-on ({client}): it speaks protocol {PROTOCOL_VERSION}"
        return f"{words}, not {ver_min}", "update the backend, or restart it if it was updated"
    read = [int(match[1]) for match in map(READS.fullmatch, caps) if match]
    if read and max(read) < SCHEMA:
        words = f"The add-on ({client}) is too old to read the captures of this backend ({server}): schema {SCHEMA}"
        return f"{words}, it reads {max(read)}", "update the add-on"
    return None
