"""The known word that a mistyped one resembles."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CUTOFF = 0.5


def find_nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is nearest to another, or an empty text if none is near."""
    by_letters = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_letters, n=1, cutoff=_CUTOFF)
    return by_letters[near[0]] if near else ""


def ask(word: str, known: Iterable[str]) -> str:
    """Return a question with the known word that is nearest, or an empty text if none is near."""
    near = find_nearest(word, known)
    return f"did you mean {near!r}?" if near else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a clause with the known word that is nearest to another, or else with all of them."""
    names = sorted(known)
    return ask(word, names) or f"known here: {', '.join(names)}"
