"""What the backend has of this computer's jobs, asked again as it changes, and what is asked of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..server_job import Listing, ServerJob, Usage

if TYPE_CHECKING:
    from ..client import Answered, Client

FRESH_S = 10.0  # how old the list may be while somebody looks at it
LOOKED_S = 3.0  # a panel that was drawn so lately is looked at


class ServerJobs:
    """The jobs that one backend has. Drawing code calls `look`, operators `ask`, the pump `tick` and `take`."""

    def __init__(self) -> None:
        self.listing = Listing(())
        self.known = False  # the backend has been asked, and has answered
        self.problem = ""  # why the list is not there, or what came of the last request
        self._asked = self._looked = float("-inf")
        self._stale = True
        self._listed = ""  # ticket of the list that is under way
        self._requests: dict[str, Callable[[], None]] = {}  # by ticket: what to do once it is answered

    @property
    def busy(self) -> bool:
        """Something was asked and is not answered yet."""
        return bool(self._listed or self._requests)

    @property
    def usage(self) -> Usage | None:
        return self.listing.usage

    def job(self, name: str) -> ServerJob | None:
        """The job of that id, when the backend has it."""
        return next((row for row in self.listing.jobs if row.job == name), None)

    def look(self) -> None:
        """Somebody looks at the list: keep it fresh."""
        self._looked = time.monotonic()

    def refresh(self) -> None:
        """Ask for the list again soon."""
        self._stale = True

    def ask(self, client: Client, kind: str, then: Callable[[], None] = lambda: None, **fields) -> None:
        """Ask something of the backend's jobs; `then` is called when it was done. A refusal stands in `problem`."""
        self.problem = ""
        self._requests[client.ask(kind, **fields)] = then

    def tick(self, client: Client) -> None:
        """Ask for the list when it may have changed."""
        now = time.monotonic()
        watched = now - self._looked < LOOKED_S
        if not self._listed and (self._stale or (watched and now - self._asked > FRESH_S)):
            self._stale, self._asked, self._listed = False, now, client.jobs()

    def take(self, event: Answered) -> bool:
        """Keep an answer; whether it was to a question of ours."""
        if event.ticket == self._listed:
            self._listed = ""
            if event.answer is not None:
                self.known = True
                if event.answer != self.listing:  # what has not changed is not drawn again
                    self.listing = event.answer
            else:
                self.problem = _sentence(event)
            return True
        if event.ticket not in self._requests:
            return False
        then = self._requests.pop(event.ticket)
        if event.answer is None:
            self.problem = _sentence(event)
        else:
            then()
        self.refresh()
        return True


def _sentence(event: Answered) -> str:
    return f"{event.message}; {event.hint}" if event.hint else event.message
