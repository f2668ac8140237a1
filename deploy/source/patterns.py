"""The choice of an app image's files: by patterns, less what their wildcards never match.

A path is a tuple of names here. A pattern is a tuple of names and wildcards; `**` stands for any
number of folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from deploy.errors import SourceUnreadable

Parts = tuple[str, ...]

# Secrets, repositories, environments, bytecode, and what editors leave behind.
HIDDEN = (
    ".env*",
    ".git",
    ".twinship",
    ".venv",
    "__pycache__",
    "*.pyc",
    "*~",
    "*.swp",
    "*.swo",
    ".#*",
    "#*#",
    ".DS_Store",
)
_ANY_DEPTH = "**"


class IgnoreRule(NamedTuple):
    """A line of a .dockerignore: it takes matching files out, or puts them back in."""

    pattern: Parts
    takes_out: bool


@dataclass(frozen=True)
class Selection:
    """The files of a folder that go into an image.

    Wildcards match no name of HIDDEN, nor the store's folder: a pattern has to name those.

    Attributes:
        patterns: the patterns of the files.
        named: files that always belong to the image, such as the Dockerfile.
        store: the folder of the model store, if it lies in this folder.
        ignore_rules: the lines of the .dockerignore; the last one that matches a file decides.
    """

    patterns: tuple[Parts, ...]
    named: frozenset[Parts] = frozenset()
    store: Parts | None = None
    ignore_rules: tuple[IgnoreRule, ...] = ()

    def selects(self, path: Parts) -> bool:
        """Return whether a file goes into the image."""
        return path in self.named or (
            any(self.is_match(path, pattern) for pattern in self.patterns)
            and not self.ignores(path)
        )

    def is_match(self, path: Parts, pattern: Parts, *, partly: bool = False) -> bool:
        """Return whether a pattern matches a file, or `partly` something at or below a path."""
        return _match(path, pattern, self._covers, partly=partly)

    def reaches(self, path: Parts) -> bool:
        """Return whether a file at or below a path can go into the image."""
        return any(name[: len(path)] == path for name in self.named) or any(
            self.is_match(path, pattern, partly=True) for pattern in self.patterns
        )

    def ignores(self, path: Parts) -> bool:
        """Return whether the .dockerignore takes out a file, or a folder above it."""
        is_out = False
        for rule in self.ignore_rules:
            ends = range(1, len(path) + 1)
            if any(_match(path[:end], rule.pattern, _covers_any) for end in ends):
                is_out = rule.takes_out
        return is_out

    @property
    def pathspecs(self) -> tuple[str, ...]:
        """The selection in git's patterns, as closely as they can express it."""
        return (
            *(f":(glob){'/'.join(pattern)}" for pattern in self.patterns),
            *(f":(literal){'/'.join(path)}" for path in sorted(self.named)),
            *(
                f":(exclude,glob)**/{hidden}{below}"
                for hidden in HIDDEN
                if not self._names(hidden)
                for below in ("", "/**")
            ),
        )

    def _covers(self, wildcard: str, path: Parts) -> bool:
        return (
            fnmatchcase(path[-1], wildcard)
            and path != self.store
            and not any(fnmatchcase(path[-1], hidden) for hidden in HIDDEN)
        )

    def _names(self, hidden: str) -> bool:
        """Return whether a pattern names something that wildcards do not match."""
        return any(fnmatchcase(part, hidden) for pattern in self.patterns for part in pattern)


def parse_pattern(text: str) -> Parts:
    """Return a pattern of `files` in [app], or the path of a file.

    Raises:
        SourceUnreadable: it is empty or leads outside of the folder.
    """
    parts = split(text)
    if text.startswith("/") or ".." in parts:
        raise SourceUnreadable(
            "a pattern leads outside of the application's folder",
            on=repr(text),
            next="name files by paths relative to pipeline.toml; copy others into its folder",
        )
    if not parts:
        raise SourceUnreadable(
            "a pattern names the application's folder, not its files",
            on=repr(text),
            next='write "**" in `files` of [app] for all of them, or name some',
        )
    return _complete(parts)


def parse_ignore_rules(text: str) -> Iterator[IgnoreRule]:
    """Yield the rules of a .dockerignore.

    Source: the reference of `docker build`, ".dockerignore files".
    """
    for line in text.removeprefix("\ufeff").splitlines():
        words = line.strip()
        if not words or line.startswith("#"):
            continue
        pattern = split(words.removeprefix("!").strip().replace("[^", "[!"))
        if pattern:
            yield IgnoreRule(_complete(tuple(_expand(pattern))), not words.startswith("!"))


def split(text: str) -> Parts:
    """Return the names of a path, or the parts of a pattern."""
    return tuple(part for part in text.split("/") if part not in ("", "."))


def _complete(pattern: Parts) -> Parts:
    """Return a pattern whose last `**` matches all that is below, as `**/*` does."""
    return (*pattern, "*") if pattern[-1] == _ANY_DEPTH else pattern


def _expand(pattern: Parts) -> Iterator[str]:
    """Yield the parts of a pattern; in a .dockerignore `**.log` is any `*.log` at any depth."""
    for part in pattern:
        if part.startswith(_ANY_DEPTH) and part != _ANY_DEPTH:
            yield _ANY_DEPTH
            yield part[1:]
        else:
            yield part


def _covers_any(wildcard: str, path: Parts) -> bool:
    return fnmatchcase(path[-1], wildcard)


def _match(
    path: Parts,
    pattern: Parts,
    covers: Callable[[str, Parts], bool],
    *,
    partly: bool = False,
    depth: int = 0,
) -> bool:
    """Return whether a pattern matches the names of a path from a depth on.

    Args:
        path: the whole path.
        pattern: what is left of the pattern.
        covers: returns whether a wildcard matches the last name of a path.
        partly: whether it is enough that the pattern can match below the path.
        depth: how many names of the path are matched already.
    """
    if depth == len(path):
        return partly or not pattern
    if not pattern:
        return False
    here = path[: depth + 1]
    first, rest = pattern[0], pattern[1:]
    if first == _ANY_DEPTH:
        return _match(path, rest, covers, partly=partly, depth=depth) or (
            covers("*", here) and _match(path, pattern, covers, partly=partly, depth=depth + 1)
        )
    return (here[-1] == first or covers(first, here)) and _match(
        path, rest, covers, partly=partly, depth=depth + 1
    )
