"""One value against one setting: a good value comes back, a bad one names place, value and range."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn, TypeAlias

from cfqueue.config.names import (
    BINDING_RULE,
    QUEUE_NAME_RULE,
    is_binding,
    is_queue_name,
    queue_name_like,
)
from cfqueue.config.settings import Kind, Setting
from cfqueue.config.suggestion import nearest
from cfqueue.errors import ConfigurationError
from cfqueue.limits import CLOUDFLARE, Limits

#: How a value was written: a file has false and null where Python has None; a variable is text.
Written: TypeAlias = Literal["file", "python", "environment"]

_LONGEST_SHOWN = 80
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
#: More digits than any range has; int() itself is slow and then refuses with thousands of them.
_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")

#: For the kinds without a range: what they are called, and what they take.
_PLAIN_KINDS: dict[Kind, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text that is not empty", lambda v: isinstance(v, str) and bool(v.strip())),
    "url": ("a URL (scheme://…)", lambda v: isinstance(v, str) and _URL.match(v) is not None),
    "list": (
        "a list of texts",
        lambda v: isinstance(v, list | tuple) and all(isinstance(item, str) and item for item in v),
    ),
    "queue": (f"the name of a queue: {QUEUE_NAME_RULE}", is_queue_name),
    "binding": (BINDING_RULE, is_binding),
    "table": (
        "a table with names as keys",
        lambda v: isinstance(v, Mapping) and all(isinstance(key, str) for key in v),
    ),
}


def check(
    setting: Setting, value: Any, where: str, *, limits: Limits = CLOUDFLARE, written: Written = "python"
) -> Any:
    """Return the value as cfqueue uses it, or raise ConfigurationError.

    ``where`` is the full place (file and key) for the error. Whole numbers are whole numbers: a
    boolean, a fraction or a text in quotes is refused, where JavaScript would coerce it.
    """
    if _means_none(setting, value, written):
        return None
    if written == "environment":
        value = _from_text(setting, value)
    if not _allows(setting, value, limits):
        refuse(setting, value, where, limits=limits, written=written)
    return tuple(value) if setting.kind == "list" else value


def refuse(
    setting: Setting, value: Any, where: str, *, limits: Limits = CLOUDFLARE, written: Written = "python"
) -> NoReturn:
    """Raise the error for a value that is not allowed."""
    rule = allowed(setting, limits, written)
    guess = _guess(setting, value, limits)
    hint = "" if guess is None else f" Did you mean {guess}?"
    raise ConfigurationError(f"{where} is {shown(value, secret=setting.secret)}; it must be {rule}.{hint}")


def allowed(setting: Setting, limits: Limits = CLOUDFLARE, written: Written = "python") -> str:
    """Say what the setting may be: ``a whole number of messages from 1 to 100``."""
    words = _words(setting, limits)
    if not setting.none or written == "environment":
        return words
    if written == "file" and setting.false_is_none:
        return f"{words}, or false ({setting.none})"
    return f"{words}, or {'null' if written == 'file' else 'None'} ({setting.none})"


def shown(value: object, *, secret: bool = False) -> str:
    """Print a value for an error: short, and never a secret."""
    if secret and value is not None:
        return f"a {type(value).__name__} (not shown)"
    try:
        text = repr(value)
    except Exception:  # a whole number of 5,000 digits has no repr
        return f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… ({len(text)} characters)"


def _means_none(setting: Setting, value: Any, written: Written) -> bool:
    if not setting.none:
        return False
    if value is None:
        return written != "file" or setting.null_in_file
    return value is False and setting.false_is_none


def _from_text(setting: Setting, value: str) -> Any:
    if setting.kind == "integer" and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if setting.kind == "list":
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _range(setting: Setting, limits: Limits) -> tuple[int, int]:
    high: int = getattr(limits, setting.limit) if setting.limit else setting.maximum
    return setting.minimum, high


def _allows(setting: Setting, value: Any, limits: Limits) -> bool:
    if setting.kind == "choice":
        return isinstance(value, str) and value in setting.choices
    if setting.kind in _PLAIN_KINDS:
        return _PLAIN_KINDS[setting.kind][1](value)
    if isinstance(value, bool) or not isinstance(value, int if setting.kind == "integer" else int | float):
        return False
    return _within(setting, value, limits)


def _within(setting: Setting, value: float, limits: Limits) -> bool:
    low, high = _range(setting, limits)
    # A NaN compares false with everything, so it is never within.
    return (low < value if setting.above_minimum else low <= value) and value <= high


def _words(setting: Setting, limits: Limits) -> str:
    if setting.kind == "choice":
        return " or ".join(repr(choice) for choice in setting.choices)
    if setting.kind in _PLAIN_KINDS:
        return _PLAIN_KINDS[setting.kind][0]
    low, high = _range(setting, limits)
    number = "a whole number" if setting.kind == "integer" else "a number"
    ends = f"above {low:,} up to {high:,}" if setting.above_minimum else f"from {low:,} to {high:,}"
    return f"{number} of {setting.unit} {ends}"


def _guess(setting: Setting, value: Any, limits: Limits) -> str | None:
    if setting.secret:
        return None
    if setting.kind in ("integer", "number"):
        return _guess_number(setting, value, limits)
    if not isinstance(value, str):
        return None
    guess = None
    if setting.kind == "queue":
        guess = queue_name_like(value)
    elif setting.kind == "choice":
        guess = nearest(value, setting.choices)
    return None if guess is None else repr(guess)


def _guess_number(setting: Setting, value: Any, limits: Limits) -> str | None:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return f"{int(value)}, without quotes" if _within(setting, int(value), limits) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer() and _within(setting, value, limits):
        return f"{int(value)}, without a fraction"
    # Cloudflare's API counts milliseconds where the file counts seconds.
    seconds, rest = divmod(value, 1000)
    if setting.unit == "seconds" and rest == 0 and seconds >= 1 and _within(setting, seconds, limits):
        return f"{int(seconds)} (seconds, not milliseconds)"
    return None
