"""``env``: the namespace of bindings that a handler receives, as on Cloudflare."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class Env:
    """Bindings by name: queues (``env.JOBS.send(…)``) and the configuration's ``vars`` (``env.API_HOST``).

    A queue without a declared binding has its name in capitals, dashes as underscores. Bindings are looked
    up when they are used, so a handler's module can be imported before the configuration is read.
    """

    def __init__(self, lookup: Callable[[str], Any], names: Callable[[], Iterable[str]]) -> None:
        object.__setattr__(self, "_lookup", lookup)
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_extra", {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        extra: dict[str, Any] = object.__getattribute__(self, "_extra")
        if name in extra:
            return extra[name]
        try:
            return object.__getattribute__(self, "_lookup")(name)
        except KeyError:
            raise AttributeError(self._unknown(name)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Add a binding of one's own (a database client, say), or replace one in a test."""
        self._extra[name] = value

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._extra or name in set(self._names()))

    def __dir__(self) -> list[str]:
        return sorted({*self._extra, *self._names()})

    def _unknown(self, name: str) -> str:
        names = dir(self)
        guess = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {guess[0]!r}?" if guess else ""
        known = ", ".join(names) or "none"
        return (
            f"env has no binding {name!r}.{hint} Bindings: {known}. Declare one in the configuration "
            "([[queues.producers]], [vars]) or set it: cf.env.NAME = value."
        )

    def __repr__(self) -> str:
        return f"<Env {', '.join(dir(self))}>"
