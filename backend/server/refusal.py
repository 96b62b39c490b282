"""Refusal: a request that the server understood and does not fulfil."""

from __future__ import annotations

from ..wire import KinoraError


class Refusal(KinoraError):
    """Answered as an `error` message; `code` is one of docs/protocol.md, the rest is for the user."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
