"""The files that a repository needs to be released, and what is left to do by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from deploy.init.repository import PATH, PORT, Repository
from deploy.settings.image import DEBIAN

SETTINGS = "pipeline.toml"
DOCKERFILE = "Dockerfile"
DESCRIPTION = "model.toml"
_GITHUB = ".github/workflows/release.yml"
_AZURE = "azure-pipelines.yml"
_TEMPLATES = Path(__file__).parent / "templates"
_MODEL_FOLDER = "model"
_WRITTEN = frozenset({DOCKERFILE, SETTINGS, "tasks.py", "noxfile.py", _AZURE})
# In a container, all addresses are those of its own network.
_UVICORN = ("uvicorn", "{name}", "--host", "0.0.0.0", "--port", "{port}")  # noqa: S104
_GUNICORN = ("gunicorn", "--bind", "0.0.0.0:{port}", "{name}")
_SERVERS = {"fastapi": _UVICORN, "starlette": _UVICORN, "flask": _GUNICORN}


@dataclass(frozen=True)
class NewFile:
    """A file to write.

    Attributes:
        path: where, relative to the repository.
        text: its content.
    """

    path: str
    text: str


def make_files(repository: Repository) -> tuple[NewFile, ...]:
    """Return the files, for whatever was found in a repository."""
    return tuple(_files(repository))


def explain_rest(repository: Repository) -> tuple[str, ...]:
    """Return what is left to do by hand, a sentence each."""
    return tuple(_rest(repository))


def _files(repository: Repository) -> Iterator[NewFile]:
    dockerfile = _dockerfile(repository)
    if dockerfile:
        yield NewFile(DOCKERFILE, dockerfile)
    yield NewFile(SETTINGS, _settings(repository))
    yield NewFile(f"{_model_folder(repository)}/{DESCRIPTION}", _description(repository))
    for name in ("tasks.py", "noxfile.py"):
        yield NewFile(name, _fill(f"{name}.txt"))
    if repository.host != "azure":
        yield NewFile(_GITHUB, _fill("release.yml"))
    if repository.host != "github":
        yield NewFile(_AZURE, _fill(_AZURE))
    # A folder of the suite's own, which no commit should have.
    yield NewFile(".twinship/.gitignore", "*\n")


def _fill(template: str, /, **values: object) -> str:
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    return Template(text).substitute(values) if values else text


def _settings(repository: Repository) -> str:
    takes_base = repository.dockerfile is not None and repository.dockerfile.takes_base
    return _fill(
        SETTINGS,
        name=repository.name,
        files=json.dumps(_patterns(repository)),
        port=repository.port or PORT,
        ready=repository.ready or PATH,
        image=f'[image]\nbase = "{DEBIAN}"    # `BASE` in the Dockerfile\n\n' if takes_base else "",
    )


def _patterns(repository: Repository) -> list[str]:
    """Return the files of the image: what the Dockerfile copies, without what the suite adds."""
    dockerfile = repository.dockerfile
    sources = dockerfile.sources if dockerfile and dockerfile.sources else (".",)
    patterns: list[str] = []
    for source in sources:
        if source == ".":
            patterns += map(_pattern, _copied_entries(repository))
        elif _exists(source, repository):
            patterns.append(
                _pattern(f"{source}/" if f"{source}/" in repository.entries else source)
            )
    return list(dict.fromkeys(patterns))


def _exists(source: str, repository: Repository) -> bool:
    """Return whether what a Dockerfile copies may be in the repository, and not made by a build."""
    top, is_below, _ = source.partition("/")
    names = repository.entries
    return "*" in top or f"{top}/" in names or (not is_below and top in names)


def _copied_entries(repository: Repository) -> Iterator[str]:
    """Yield the entries at the top, without the suite's files and the model's folder."""
    for entry in repository.entries:
        if entry not in _WRITTEN and entry != f"{_model_folder(repository)}/":
            yield entry


def _pattern(entry: str) -> str:
    return f"{entry}**" if entry.endswith("/") else entry


def _model_folder(repository: Repository) -> str:
    """Return the folder of the model: that of the weights, which has to be one of its own."""
    weights = repository.weights
    folder = str(weights.path.parent) if weights else "."
    return _MODEL_FOLDER if folder == "." else folder


def _description(repository: Repository) -> str:
    weights = repository.weights
    return _fill(
        DESCRIPTION,
        name=repository.name,
        format=weights.format if weights else "onnx",
        weights=weights.path.name if weights else "model.onnx",
        folder=_model_folder(repository),
        ready=repository.ready or PATH,
    )


def _dockerfile(repository: Repository) -> str:
    """Return a Dockerfile for a web application in Python; empty for anything else."""
    if repository.dockerfile or not repository.web_objects:
        return ""
    name, framework = repository.web_objects[0]
    port = repository.port or PORT
    server = _SERVERS[framework]
    command = ["python", "-m", *(part.format(name=name, port=port) for part in server)]
    return _fill(
        DOCKERFILE,
        packages="COPY requirements.txt ./\nRUN pip install --no-cache-dir -r requirements.txt"
        if repository.packages
        else f"RUN pip install --no-cache-dir {framework} {server[0]}",
        port=port,
        command=json.dumps(command),
    )


def _rest(repository: Repository) -> Iterator[str]:
    folder = _model_folder(repository)
    if not repository.dockerfile and not repository.web_objects:
        yield "write a Dockerfile: no application was recognised"
    server = _SERVERS[repository.web_objects[0][1]][0] if repository.web_objects else ""
    missing_server = server and repository.packages and server not in repository.packages
    if missing_server and not repository.dockerfile:
        yield f"add {server} to requirements.txt: the Dockerfile starts it"
    if repository.dockerfile and not repository.dockerfile.marks_model:
        yield (
            "put `LABEL twinship.model=here` into the Dockerfile, between the packages and the "
            "code: new code then moves no model"
        )
    if not repository.ready:
        yield f"set `ready` in {SETTINGS}: no path was found that tells whether it can serve"
    if repository.port is None and repository.dockerfile:
        yield f"check `port` in {SETTINGS}: the Dockerfile exposes none"
    if repository.weights is None:
        yield f"put the weights into {folder}/, and their name into {folder}/{DESCRIPTION}"
    elif str(repository.weights.path.parent) == ".":
        yield f"move {repository.weights.path} into {folder}/"
    yield "let the application read its model from the folder that `mount` names"
    yield f"replace the golden case in {folder}/{DESCRIPTION} by a prediction"
    yield f"commit, then `invoke model.publish --directory {folder}` and `invoke release`"
