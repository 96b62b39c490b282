"""The list of published weights, third_party/checkpoints.toml, as dataclasses; what its fields mean stands there."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..wire import UserError

MANIFEST = Path(__file__).resolve().parents[2] / "third_party" / "checkpoints.toml"


@dataclass(frozen=True)
class Licence:
    """Terms of a model in a line; `commercial_use` is what the licence says of the weights themselves."""

    name: str
    commercial_use: bool
    summary: str
    url: str


@dataclass(frozen=True)
class WeightsFile:
    """One file of a model, with what is known of it before it is seen."""

    name: str
    bytes: int | None = None
    about_bytes: int | None = None
    sha256: str | None = None
    optional: bool = False

    @property
    def size(self) -> int:
        """Bytes, exact or about; 0 when nobody saw the file."""
        return self.bytes or self.about_bytes or 0

    @property
    def hash_start(self) -> str | None:
        """How its SHA-256 begins, as far as known: all of it, or what torchvision put into its name."""
        in_name = re.fullmatch(r".+-([0-9a-f]{8})\.pth", self.name)
        return self.sha256 or (in_name[1] if in_name else None)


@dataclass(frozen=True)
class Model:
    """Weights that an engine asks for by name; exactly one of `repo`, `torchvision` and `page` says where they are."""

    name: str
    title: str
    engine: str
    licence: Licence
    note: str
    network: str
    files: tuple[WeightsFile, ...]
    repo: str | None = None
    torchvision: str | None = None
    page: str | None = None
    revision: str | None = None
    parameters: int | None = None
    about_parameters: int | None = None

    @property
    def checkpoint(self) -> WeightsFile:
        """The file with the tensors."""
        return self.files[0]

    @property
    def size(self) -> int:
        """Bytes of all files, at least about."""
        return sum(file.size for file in self.files)

    @property
    def source(self) -> str:
        """Where it is published, for people."""
        return self.repo or (f"torchvision {self.torchvision}" if self.torchvision else self.page or "")

    @property
    def terms(self) -> str:
        """The licence and what it means for a studio, in a few words."""
        allowed = "commercial use allowed" if self.licence.commercial_use else "no commercial use"
        return f"{self.licence.name}: {allowed}"


def models() -> dict[str, Model]:
    """Every model by its name. Raises ValueError on a list that contradicts itself, which is a mistake of ours."""
    content = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    licences = {name: Licence(name, **entry) for name, entry in content["licences"].items()}
    found = {}
    for name, entry in content["models"].items():
        entry = {**entry, "licence": licences[entry["licence"]]}
        entry["files"] = tuple(WeightsFile(**file) for file in entry["files"])
        model = found[name] = Model(name, **entry)
        if [model.repo, model.torchvision, model.page].count(None) != 2:
            raise ValueError(f"{name}: exactly one of repo, torchvision and page must be given")
        if model.revision and not re.fullmatch(r"[0-9a-f]{40}", model.revision):
            raise ValueError(f"{name}: a revision is a full commit")
        for file in model.files:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", file.name):
                raise ValueError(f"{name}: {file.name} is not a plain file name")
            if file.sha256 and not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
                raise ValueError(f"{name}: the SHA-256 of {file.name} has 64 hexadecimal digits")
    return found


def model_named(name: str) -> Model:
    """The model of that name. Raises UserError when there is none."""
    known = models()
    if name not in known:
        raise UserError(f"There are no weights '{name}'", f"choose one of {', '.join(known)}")
    return known[name]


def size_in_words(count: int) -> str:
    """Bytes as people say them: 453 bytes, 21.1 MB, 2.3 GB."""
    if count < 1000:
        return f"{count} bytes"
    unit, factor = next((u, f) for u, f in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= f)
    return f"{count / factor:.1f} {unit}"
