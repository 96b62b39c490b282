"""Options: dataclass fields that carry label, limits, unit and help, and groups of them that check what they hold."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from .errors import UserError


def option(
    default: Any,
    label: str,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: str = "",
    choices: tuple[tuple[str, str, str], ...] = (),
    advanced: bool = False,
) -> Any:
    """A dataclass field that describes itself.

    `choices` are (value, label, help) rows; `unit` is '', 'px', 'mm', 'frames' or 'factor'; `advanced` options
    stand in a closed sub-panel.
    """
    return field(
        default=default,
        metadata={
            "label": label,
            "help": help,
            "minimum": minimum,
            "maximum": maximum,
            "unit": unit,
            "choices": choices,
            "advanced": advanced,
        },
    )


@dataclass(frozen=True)
class Settings:
    """Base of every group of settings: checks types and limits, and converts from and to JSON."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(f.default, (bool, int, float, str)):
                object.__setattr__(self, f.name, _checked(f, value))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` takes back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Any:
        """Settings from a dictionary; absent fields take their default. Raises UserError on anything else."""
        if not isinstance(data, dict):
            raise UserError(f"{cls.__name__} must be a table of settings, not {type(data).__name__}")
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(map(str, data)) - known)
        if unknown:
            raise UserError(
                f"Unknown setting '{unknown[0][:80]}' in {cls.__name__}",
                "update the add-on and the backend to the same version",
            )
        return cls(**data)


def _checked(f: dataclasses.Field, value: Any) -> Any:
    """The value in the type of the field's default, or a UserError that names the setting."""
    meta, kind, label = f.metadata, type(f.default), f.metadata.get("label", f.name)
    if isinstance(value, int) and abs(value) >= 2**31:  # of no setting, and float() raises on huge ones
        raise UserError(f"{label} must be a number of at most {2**31 - 1}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"{label} must be {kind.__name__}, not {type(value).__name__}")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{label} must be a finite number")
    low, high = meta.get("minimum"), meta.get("maximum")
    if kind in (int, float) and low is not None and value < low:
        raise UserError(f"{label} must be at least {low}, not {value}")
    if kind in (int, float) and high is not None and value > high:
        raise UserError(f"{label} must be at most {high}, not {value}")
    allowed = [row[0] for row in meta.get("choices", ())]
    if allowed and value not in allowed:
        raise UserError(f"{label} must be one of {', '.join(allowed)}, not '{value[:80]}'")
    return value
