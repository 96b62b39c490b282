"""Trash: what is removed is out of its place at once, and deleted by a thread, since much may lie below it."""

from __future__ import annotations

import errno
import logging
import os
import queue
import secrets
import shutil
import threading
from pathlib import Path

log = logging.getLogger(__name__)

#: Where moving is impossible and deleting is not, which then is waited for: another disk, or no room for a name.
IN_PLACE = (errno.EXDEV, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class Trash:
    """A folder beside what it takes, on the same disk. What an earlier server left in it goes as well."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            self._waiting.put(path)
        threading.Thread(target=self._empty, name="kinora-trash", daemon=True).start()

    def take(self, path: Path) -> None:
        """Remove a file or a folder, if it is there. Raises OSError when it is in use (on Windows)."""
        place = self._folder / f"{path.name}-{secrets.token_hex(8)}"
        try:
            os.rename(path, place)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in IN_PLACE:
                raise
            remove(path)
        else:
            self._waiting.put(place)

    def close(self) -> None:
        """Delete no more after what is being deleted now; the next server does."""
        self._waiting.put(None)

    def _empty(self) -> None:
        while (path := self._waiting.get()) is not None:
            try:
                remove(path)
            except OSError as error:
                log.warning("%s is not removed yet: %s", path, error)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all below it; a link is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
