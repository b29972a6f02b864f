"""Values as they are shown in error texts: short, and harmless whatever the value does."""

from __future__ import annotations

_MOST = 80


def shown(value: object) -> str:
    """Return ``repr(value)``, cut to 80 characters."""
    try:
        text = repr(value)
    except Exception:
        # An int of too many digits, an object nested too deep, a __repr__ that raises.
        return f"<{type(value).__name__}>"
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."


def middle_cut(text: str) -> str:
    """Return ``text`` with its middle left out when it is longer than 80 characters."""
    return text if len(text) <= _MOST else f"{text[:38]} ... {text[-37:]}"


def lone_surrogate(where: str, text: str, offset: int) -> str:
    """Say that ``text`` cannot be written as UTF-8, and what to do."""
    return (
        f"{where} contains a lone surrogate, U+{ord(text[offset]):04X} at offset {offset}, which UTF-8 "
        "cannot carry. Decode the text with errors='replace', or send it as bytes."
    )
