"""Errors that both sides understand: what a user can fix, what was cancelled, what broke the protocol."""

from __future__ import annotations


class KinoraError(Exception):
    """Root of every error that Kinora raises on purpose."""


class UserError(KinoraError):
    """Something the user can fix; `message` says what happened and `hint` what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class Cancelled(KinoraError):
    """The user asked for the work to stop."""


class ProtocolError(KinoraError):
    """The other side sent something that is not of the protocol; `code` is one of `docs/protocol.md`."""

    def __init__(self, message: str, code: str = "bad_request") -> None:
        super().__init__(message)
        self.code = code
