"""What tests of the application share: the published digits model, an app over it, and pictures."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app import application
from app.service import Service
from app.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

DIGITS = Path(__file__).parents[2] / "models" / "digits"


Mutation = Callable[[dict[str, Any]], object]


def publish(author: Path, published: Path) -> Path:
    """Publish an author's directory: the same files, and a manifest in place of model.toml."""
    shutil.copytree(author, published, ignore=shutil.ignore_patterns("model.toml"))
    document = tomllib.loads((author / "model.toml").read_text("utf-8"))
    for tensor in (document["interface"]["input"], document["interface"]["output"]):
        tensor["shape"] = [None if side == -1 else side for side in tensor["shape"]]
    document |= {"schema": 1, "files": listing(published)}
    (published / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return published


def listing(published: Path) -> list[dict[str, object]]:
    """List the files of a model as its manifest does."""
    paths = sorted(
        path for path in published.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    return [
        {
            "path": path.relative_to(published).as_posix(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in paths
    ]


@pytest.fixture(scope="session")
def picture() -> Callable[..., str]:
    """Make a picture of one colour, in base64."""

    def make(
        size: tuple[int, int] = (8, 8), mode: str = "RGB", colour: float = 0, kind: str = "PNG"
    ) -> str:
        file = io.BytesIO()
        Image.new(mode, size, colour).save(file, kind)
        return base64.b64encode(file.getvalue()).decode()

    return make


@pytest.fixture
def alter(model_dir: Path) -> Callable[[Mutation], Path]:
    """Change the manifest of the model that a test may damage; return the model's directory."""

    def change(mutation: Mutation) -> Path:
        path = model_dir / "manifest.json"
        document = json.loads(path.read_text("utf-8"))
        mutation(document)
        path.write_text(json.dumps(document), encoding="utf-8")
        return model_dir

    return change


@pytest.fixture
def relist(model_dir: Path, alter: Callable[[Mutation], Path]) -> Callable[[], Path]:
    """List the files in the manifest as they are now, so that only their content is wrong."""
    return lambda: alter(lambda document: document.update(files=listing(model_dir)))


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A published digits model that a test may damage."""
    return publish(DIGITS, tmp_path / "model")


@pytest.fixture(scope="session")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published digits model that all tests share and leave alone."""
    return publish(DIGITS, tmp_path_factory.mktemp("published") / "model")


@pytest.fixture(scope="session")
def settings(whole_model: Path) -> Settings:
    """Settings with limits that a test reaches quickly."""
    return Settings(
        model_dir=whole_model,
        max_body_bytes=200_000,
        max_pictures=4,
        max_pixels=10_000,
        commit="c0ffee",
    )


@pytest.fixture
def service(settings: Settings) -> Service:
    """The whole model, loaded, with all that serves it."""
    return application.load(settings)


@pytest.fixture
def app(service: Service) -> ASGIApp:
    """An application over the whole model."""
    return application.create_app(service)


@pytest.fixture
def client(app: ASGIApp) -> TestClient:
    """A client of the application."""
    return TestClient(app)


@pytest.fixture
def score(client: TestClient) -> Callable[[object], Any]:
    """Post a body to /score and return the response; what is not bytes is sent as JSON."""

    def post(body: object) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.post("/score", content=raw, headers={"Content-Type": "application/json"})

    return post
