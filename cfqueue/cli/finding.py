"""What ``cfqueue doctor`` finds: one fact, what it means, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "info", "warn", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``meaning`` and ``action`` are one sentence each; there is nothing to do when it is ``ok``."""

    check: str
    level: Level
    meaning: str
    action: str = ""

    @property
    def needs_doing(self) -> bool:
        """Whether somebody should act on it."""
        return self.level in {"warn", "error"}
