"""What can be set of each engine and task: a dataclass each."""

from .classical import ClassicalSettings
from .localise import LocaliseSettings
from .mast3r import MASt3RSettings
from .monst3r import MonST3RSettings
from .point3r import Point3RSettings

__all__ = ["ClassicalSettings", "LocaliseSettings", "MASt3RSettings", "MonST3RSettings", "Point3RSettings"]
