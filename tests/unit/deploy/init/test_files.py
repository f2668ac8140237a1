"""The files that a repository gets, and what is left to do by hand."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from deploy.errors import FileRefused
from deploy.init.files import explain_rest, make_files
from deploy.init.repository import read_repository
from deploy.init.writing import write_files
from deploy.model.manifest import AuthorsDescription
from deploy.settings.reading import Settings

DOCKERFILE = "FROM python:3.13\nCOPY . .\nEXPOSE 8000\n"
FASTAPI = 'from fastapi import FastAPI\napp = FastAPI()\n@app.get("/healthz")\n'


def repository(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a repository into a folder of that name."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def initialize(folder: Path) -> list[str]:
    """Write what the repository needs; return what was written."""
    return write_files(folder, make_files(read_repository(folder)))[0]


def settings_of(folder: Path) -> Settings:
    """Return the settings that were written; they are valid."""
    return Settings.read(folder, {})


def rest_of(folder: Path) -> str:
    """Return what is left to do."""
    return "\n".join(explain_rest(read_repository(folder)))


def test_an_application_with_a_dockerfile_gets_settings_of_what_it_says(tmp_path: Path) -> None:
    """They are its name, port, path and files, and the folder of its weights."""
    folder = repository(
        tmp_path / "My Shop",
        {
            "Dockerfile": DOCKERFILE,
            "src/main.py": FASTAPI,
            "weights/best.safetensors": "",
            "README.md": "",
            ".env": "SECRET=1",
            "node_modules/x.js": '"/readyz"',
        },
    )
    written = initialize(folder)
    assert "Dockerfile" not in written
    found = settings_of(folder)
    assert (found.app.name, found.app.port, found.app.ready) == ("my-shop", 8000, "/healthz")
    assert found.app.files == ("README.md", "src/**")
    description = AuthorsDescription.model_validate(
        tomllib.loads((folder / "weights/model.toml").read_text(encoding="utf-8"))
    )
    assert (description.format, description.weights) == ("safetensors", "best.safetensors")
    assert description.golden[0].request.path == "/healthz"
    assert "twinship.model=here" in rest_of(folder)


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (
            "app = FastAPI()",
            '["python", "-m", "uvicorn", "shop.main:app", "--host", "0.0.0.0", "--port", "8080"]',
        ),
        (
            "service: Flask = Flask(__name__)",
            '["python", "-m", "gunicorn", "--bind", "0.0.0.0:8080", "shop.main:service"]',
        ),
    ],
)
def test_a_python_application_gets_a_dockerfile(tmp_path: Path, source: str, command: str) -> None:
    """Its server is started on the port that the settings name."""
    folder = repository(tmp_path, {"shop/main.py": source, "requirements.txt": "x\n"})
    rest = rest_of(folder)
    assert "Dockerfile" in initialize(folder)
    text = (folder / "Dockerfile").read_text(encoding="utf-8")
    assert f"CMD {command}\n" in text
    assert "requirements.txt" in text
    assert "LABEL twinship.model=here" in text
    assert settings_of(folder).app.port == 8080
    server = "uvicorn" if "FastAPI" in source else "gunicorn"
    assert f"add {server} to requirements.txt" in rest


def test_what_the_dockerfile_copies_is_in_the_image(tmp_path: Path) -> None:
    """Folders are copied with all that is in them; what is not in the repository is not named."""
    text = "FROM x\nCOPY src lib/a.py *.txt wheels/ /srv/\n"
    folder = repository(tmp_path, {"Dockerfile": text, "src/a.py": "", "lib/a.py": "", "a.txt": ""})
    initialize(folder)
    assert settings_of(folder).app.files == ("src/**", "lib/a.py", "*.txt")


def test_an_unknown_application_is_told_what_to_write(tmp_path: Path) -> None:
    """The settings are valid all the same."""
    folder = repository(tmp_path / "9", {"main.zig": ""})
    initialize(folder)
    assert settings_of(folder).app.name == "9"
    assert "write a Dockerfile" in rest_of(folder)
    assert "put the weights into model/" in rest_of(folder)
    assert "set `ready`" in rest_of(folder)


def test_weights_at_the_top_are_to_be_moved(tmp_path: Path) -> None:
    """A model's folder is published as a whole."""
    folder = repository(tmp_path, {"Dockerfile": DOCKERFILE, "m.onnx": ""})
    assert "model/model.toml" in initialize(folder)
    assert "move m.onnx into model/" in rest_of(folder)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"pyproject.toml": '[project]\nname = "My.Shop"'}, "my-shop"),
        ({"package.json": '{"name": "@org/shop"}'}, "org-shop"),
        ({"pyproject.toml": "broken ["}, "folder"),
        ({"package.json": "[1]"}, "folder"),
        ({"package.json": '{"name": 1}'}, "folder"),
    ],
)
def test_the_name_is_the_projects_own(tmp_path: Path, files: dict[str, str], name: str) -> None:
    """Without one, or where it cannot be read, it is the folder's."""
    assert read_repository(repository(tmp_path / "folder", files)).name == name


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("git@github.com:a/b.git", {".github/workflows/release.yml"}),
        ("https://dev.azure.com/a/b", {"azure-pipelines.yml"}),
        ("https://git.example.com/a", {".github/workflows/release.yml", "azure-pipelines.yml"}),
    ],
)
def test_the_ci_file_is_that_of_the_remote(tmp_path: Path, url: str, expected: set[str]) -> None:
    """Where the remote is unknown, both are written; both are YAML."""
    folder = repository(tmp_path, {".git/config": f'[remote "origin"]\n\turl = {url}\n'})
    written = {path for path in initialize(folder) if path.endswith(".yml")}
    assert written == expected
    for path in written:
        assert yaml.safe_load((folder / path).read_text(encoding="utf-8"))


def test_files_that_exist_are_kept(tmp_path: Path) -> None:
    """It can be run again, and what was removed comes back."""
    folder = repository(tmp_path, {"Dockerfile": DOCKERFILE, "tasks.py": "mine"})
    written = initialize(folder)
    (folder / "noxfile.py").unlink()
    again, kept = write_files(folder, make_files(read_repository(folder)))
    assert again == ["noxfile.py"]
    assert set(kept) == {*written, "tasks.py"} - {"noxfile.py"}
    assert (folder / "tasks.py").read_text(encoding="utf-8") == "mine"


def test_the_base_image_of_the_settings_is_for_dockerfiles_that_take_it(tmp_path: Path) -> None:
    """Others name their own, and the settings have no table for it."""
    plain = repository(tmp_path / "a", {"Dockerfile": DOCKERFILE})
    taking = repository(tmp_path / "b", {"Dockerfile": "ARG BASE\nFROM $BASE\n"})
    for folder, has_table in ((plain, False), (taking, True)):
        initialize(folder)
        text = (folder / "pipeline.toml").read_text(encoding="utf-8")
        assert ("[image]" in text) is has_table
        assert settings_of(folder).image.base


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Nothing is created in its place."""
    with pytest.raises(FileRefused):
        write_files(tmp_path / "missing", ())
    assert not (tmp_path / "missing").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """What was written before stays; here a file is in the place of a folder."""
    folder = repository(tmp_path, {"Dockerfile": DOCKERFILE, "model": ""})
    with pytest.raises(FileRefused) as caught:
        initialize(folder)
    assert caught.value.on == str(folder / "model" / "model.toml")
    assert (folder / "pipeline.toml").is_file()
