"""Did-you-mean: the known name that a wrong one most likely stands for."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(wrong: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """Find the known name nearest to ``wrong``; None when nothing is near.

    Case, dashes and underscores do not count, so that ``maxBatchSize`` finds ``max_batch_size``.
    ``cutoff`` is difflib's ratio, from 0 (anything) to 1 (the same).
    """
    by_form = {_form(name): name for name in known}
    form = _form(wrong)
    if form in by_form:
        return by_form[form]
    import difflib

    matches = difflib.get_close_matches(form, by_form, n=1, cutoff=cutoff)
    return by_form[matches[0]] if matches else None


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Make a sentence to append to an error (with its leading space), or nothing."""
    match = nearest(wrong, known)
    return f" Did you mean {match!r}?" if match is not None else ""


def _form(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")
