"""What publishers say of a file before it is downloaded, and their refusals in words a user can act on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session

from ..wire import UserError

PATIENCE_S = 20.0  # of silence, after which a connection counts as cut
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
BY_HAND = "or get the file elsewhere and give it with --from"


class Cut(Exception):
    """A transfer that ended early, or a server that is busy; `pause_s` is what the server asks for."""

    def __init__(self, words: str, pause_s: float = 0.0) -> None:
        super().__init__(words)
        self.pause_s = pause_s


class Absent(UserError):
    """A repository without the file."""


@dataclass(frozen=True)
class Remote:
    """A file where it is published, as its publisher describes it.

    `sha256`, or `git_sha1` for small files of a hub, is what the bytes must have; both are None where nothing is said.
    """

    url: str
    bytes: int | None
    sha256: str | None = None
    git_sha1: str | None = None
    commit: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> str:
        """The same for the same bytes: what half a download is told apart by."""
        return self.sha256 or self.git_sha1 or hashlib.sha256(f"{self.url} {self.bytes}".encode()).hexdigest()


def endpoint() -> str:
    """The hub's address, as HF_ENDPOINT is now."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the user keeps huggingface_hub from the network."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE") or constants.is_offline_mode()


def on_hub(repo: str, file: str, revision: str | None) -> Remote:
    """What the hub says of a file, by one request. Raises UserError, and httpx2.HTTPError without connection."""
    url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint())
    with told(repo, file):
        meta = get_hf_file_metadata(url, timeout=PATIENCE_S)
    etag = meta.etag or ""
    if not meta.commit_hash or len(etag) not in (40, 64):
        raise UserError(
            f"{host(url)} does not answer as a hub does", "check HF_ENDPOINT and the network's sign-in page"
        )
    headers = build_hf_headers() if host(meta.location) == host(url) else {}  # a log-in is for the hub alone
    return Remote(
        url=meta.location,
        bytes=meta.size,
        sha256=etag if len(etag) == 64 else None,
        git_sha1=etag if len(etag) == 40 else None,
        commit=meta.commit_hash,
        headers=tuple((name, value) for name, value in headers.items() if name.lower() == "authorization"),
    )


def at_address(url: str) -> Remote:
    """What any server says of a file, its size at most. Raises UserError, and httpx2.HTTPError without connection."""
    answer = get_session().head(url, headers={"Accept-Encoding": "identity"}, timeout=PATIENCE_S)
    if answer.status_code in TRY_AGAIN:
        raise Cut(f"the server is busy ({answer.status_code})")
    if answer.status_code >= 400:
        raise UserError(
            f"{host(url)} refused {Path(answer.url.path).name} ({answer.status_code})", f"try later, {BY_HAND}"
        )
    size = answer.headers.get("Content-Length", "")
    return Remote(str(answer.url), int(size) if size.isdigit() else None)


@contextmanager
def told(repo: str, file: str) -> Iterator[None]:
    """The hub's refusals, and a busy hub, in words."""
    page = f"{endpoint()}/{repo}"
    try:
        yield
    except GatedRepoError as error:  # is a RepositoryNotFoundError, so it comes first
        raise UserError(
            f"{repo} is open only to those whom its publisher let in",
            f"ask for access on {page}, sign in with 'hf auth login', and try again",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"{repo} is not on the hub any more, or not in this version", f"update Kinora, {BY_HAND}"
        ) from error
    except RemoteEntryNotFoundError as error:
        raise Absent(f"There is no {file} in {repo}", f"update Kinora, {BY_HAND}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in TRY_AGAIN:
            raise Cut(f"the hub is busy ({status})") from error
        raise UserError(
            f"The hub refused {file} of {repo} ({status})", f"sign in with 'hf auth login', {BY_HAND}"
        ) from error


def host(url: str) -> str:
    """The server of an address, with its port."""
    return urlsplit(url).netloc
