"""What a repository says of its application: read from its files, and never run."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.init.dockerfile import Dockerfile, parse_dockerfile

PORT = 8080
"""The port of an application that does not say which it is."""
PATH = "/"
"""The path that is asked where none is known to tell that the application is ready."""

# The first of them that the source names counts: those that tell of readiness before others.
_READY_PATHS = (
    "/readyz",
    "/ready",
    "/healthz",
    "/health",
    "/livez",
    "/live",
    "/ping",
    "/status",
)
_SOURCES = frozenset({".py", ".js", ".mjs", ".ts", ".go", ".rb", ".java", ".rs"})
_FORMATS = {".onnx": "onnx", ".safetensors": "safetensors", ".gguf": "gguf"}
_SKIPPED = frozenset({"node_modules", "venv", "env", "__pycache__", "dist", "build", "target"})
_DEPTH = 4
_MOST_FILES = 2_000
_MOST_BYTES = 300_000


@dataclass(frozen=True)
class Weights:
    """The weights of a model that lie in the repository.

    Attributes:
        path: where they are.
        format: what `model.toml` calls their format.
    """

    path: PurePosixPath
    format: str


@dataclass(frozen=True)
class Repository:
    """What was found.

    Attributes:
        name: the name of the application, as settings can have it.
        entries: the visible files and folders at the top, folders with a slash at their end.
        dockerfile: the Dockerfile; None if there is none.
        port: the port on which the application listens; None if nothing says so.
        ready: the path that tells whether it can serve; empty if nothing says so.
        weights: the weights of its model; None if there are none.
        web_objects: the Python applications in it, as `module:name` and the framework.
        packages: the text of its list of Python packages; empty if there is none.
        host: where its remote is: `github`, `azure`, or empty.
    """

    name: str
    entries: tuple[str, ...]
    dockerfile: Dockerfile | None
    port: int | None
    ready: str
    weights: Weights | None
    web_objects: tuple[tuple[str, str], ...]
    packages: str
    host: str


def read_repository(folder: Path) -> Repository:
    """Return what a folder says of the application in it."""
    files = tuple(islice(_walk(folder, _DEPTH, PurePosixPath()), _MOST_FILES))
    sources = {path: _read(folder / path) for path in files if path.suffix in _SOURCES}
    dockerfile = folder / "Dockerfile"
    found = parse_dockerfile(_read(dockerfile)) if dockerfile.is_file() else None
    return Repository(
        name=_name(folder),
        entries=tuple(_entries(folder)),
        dockerfile=found,
        port=found.port if found else None,
        ready=(found.ready if found else "") or _ready_path(sources.values()),
        weights=_weights(files),
        web_objects=tuple(_web_objects(sources)),
        packages=_read(folder / "requirements.txt"),
        host=_host(folder),
    )


def _walk(folder: Path, depth: int, below: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield the visible files of a folder, in order, files before folders."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    except OSError:
        return
    for path in entries:
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_file():
            yield below / path.name
        elif path.is_dir() and depth > 1 and path.name not in _SKIPPED:
            yield from _walk(path, depth - 1, below / path.name)


def _entries(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name not in _SKIPPED:
            yield f"{path.name}/" if path.is_dir() else path.name


def _read(path: Path) -> str:
    """Return the beginning of a text; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _name(folder: Path) -> str:
    """Return the name that the repository gives itself, in the form of settings."""
    for text, parse in (
        (_read(folder / "pyproject.toml"), tomllib.loads),
        (_read(folder / "package.json"), json.loads),
    ):
        found = _declared_name(text, parse)
        if found:
            return found
    return _plain_name(folder.resolve().name) or "application"


def _declared_name(text: str, parse: Callable[[str], Any]) -> str:
    try:
        content = parse(text) if text else {}
    except ValueError:
        return ""
    if not isinstance(content, dict):
        return ""
    project = content.get("project", content)
    name = project.get("name") if isinstance(project, dict) else None
    return _plain_name(name) if isinstance(name, str) else ""


def _plain_name(text: str) -> str:
    """Return a name of lower-case letters and digits, in words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-")


def _ready_path(sources: Iterable[str]) -> str:
    """Return the first known path that stands in quotes in the source."""
    texts = tuple(sources)
    return next(
        (
            path
            for path in _READY_PATHS
            if any(f'"{path}"' in text or f"'{path}'" in text for text in texts)
        ),
        "",
    )


def _weights(files: Iterable[PurePosixPath]) -> Weights | None:
    return next(
        (Weights(path, _FORMATS[path.suffix]) for path in files if path.suffix in _FORMATS), None
    )


def _web_objects(sources: dict[PurePosixPath, str]) -> Iterator[tuple[str, str]]:
    """Yield the applications of Python's web frameworks, as `module:name` and the framework."""
    for path, text in sources.items():
        if path.suffix != ".py" or "test" in path.name:
            continue
        found = re.search(r"(?m)^(\w+)(?:\s*:\s*\w+)?\s*=\s*(FastAPI|Flask|Starlette)\(", text)
        if found:
            parts = path.with_suffix("").parts
            module = ".".join(part for part in parts if part != "__init__")
            yield f"{module}:{found[1]}", found[2].lower()


def _host(folder: Path) -> str:
    """Return which host the repository's remote is on, by git's own configuration."""
    configuration = _read(folder / ".git" / "config")
    if "github.com" in configuration:
        return "github"
    return (
        "azure" if "dev.azure.com" in configuration or "visualstudio.com" in configuration else ""
    )
