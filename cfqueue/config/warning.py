"""The one kind of warning that configuration gives, and how it is given."""

from __future__ import annotations

import sys
import warnings


class ConfigurationWarning(UserWarning):
    """A setting is unknown, has no effect, or is overruled. What is meant still works."""


def warn(text: str) -> None:
    """Warn with the first line outside of cfqueue as its place: that is where the reader can act."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, ConfigurationWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module == "cfqueue" or module.startswith("cfqueue.")
