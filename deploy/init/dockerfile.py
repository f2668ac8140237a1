"""What a Dockerfile says of the application in its image.

Source: Docker's "Dockerfile reference".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_URL_PATH = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::\d+)?(/[\w./~-]*)")
_LISTENING = re.compile(
    r"(?:--port[=\s\",]+|-p[\s\",]+|0\.0\.0\.0:|--bind[=\s\",]+\S*:)(\d{2,5})\b"
)
_MOST_PORT = 65_535


@dataclass(frozen=True)
class Dockerfile:
    """What was found in a Dockerfile.

    Attributes:
        port: the port on which the application listens; None if none is named.
        ready: the path of its health check; empty if it has none.
        sources: what is copied from the build context; a dot is all of it.
        takes_base: whether the argument `BASE` names the image that it starts from.
        marks_model: whether it marks where the model is joined.
    """

    port: int | None
    ready: str
    sources: tuple[str, ...]
    takes_base: bool
    marks_model: bool


def parse_dockerfile(text: str) -> Dockerfile:
    """Return what a Dockerfile says."""
    instructions = tuple(_instructions(text))
    # The last of a kind counts.
    by_name = dict(instructions)
    return Dockerfile(
        port=_port(by_name),
        ready=_ready(by_name.get("HEALTHCHECK", "")),
        sources=tuple(
            dict.fromkeys(
                source
                for name, rest in instructions
                if name in ("COPY", "ADD")
                for source in _sources(rest)
            )
        ),
        takes_base=any(
            name == "ARG" and rest.partition("=")[0].strip() == "BASE"
            for name, rest in instructions
        ),
        marks_model=any(
            name == "LABEL" and "twinship.model=here" in rest for name, rest in instructions
        ),
    )


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions, each on one line and without comments."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    for line in joined.splitlines():
        name, _, rest = line.strip().partition(" ")
        if name:
            yield name.upper(), rest.strip()


def _port(by_name: dict[str, str]) -> int | None:
    exposed = re.match(r"(\d+)", by_name.get("EXPOSE", ""))
    command = f"{by_name.get('ENTRYPOINT', '')} {by_name.get('CMD', '')}"
    found = exposed or _LISTENING.search(command)
    number = int(found[1]) if found else 0
    return number if 0 < number <= _MOST_PORT else None


def _ready(check: str) -> str:
    found = _URL_PATH.search(check)
    return found[1] if found else ""


def _sources(rest: str) -> Iterator[str]:
    """Yield what COPY or ADD copies from the build context."""
    words = _words(rest)
    options = [word for word in words if word.startswith("--")]
    if any(option.startswith("--from=") for option in options):
        return
    for word in [word for word in words if not word.startswith("--")][:-1]:
        if "://" not in word and "$" not in word:
            yield word.removeprefix("./").rstrip("/") or "."


def _words(rest: str) -> list[str]:
    form = re.search(r"\[.*\]\s*$", rest)
    if form:
        return re.findall(r'"([^"]*)"', form[0])
    try:
        return shlex.split(rest)
    except ValueError:
        return rest.split()
