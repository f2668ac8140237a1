from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it carries no types
from openapi_spec_validator import validate

from app.routes import OPENAPI, routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.testclient import TestClient

    from app.service import Service

DESCRIPTION: dict[str, Any] = json.loads(OPENAPI.read_text("utf-8"))


def conforms(name: str, value: object) -> None:
    """Hold a value against a schema of the description."""
    Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DESCRIPTION["components"]}
    ).validate(value)


def test_description_is_valid_openapi() -> None:
    """The document keeps to OpenAPI 3.1."""
    validate(DESCRIPTION)


def test_description_is_served(client: TestClient) -> None:
    """What is served is the document."""
    assert client.get("/openapi.json").json() == DESCRIPTION


def test_every_route_is_described(service: Service) -> None:
    """No path or method is served that the document does not have, nor the reverse."""
    served = {
        (route.path, method.lower())
        for route in routes(service)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {
        (path, method) for path, item in DESCRIPTION["paths"].items() for method in item
    }


@pytest.mark.parametrize(
    "path", [path for path, item in DESCRIPTION["paths"].items() if "get" in item]
)
def test_answers_have_a_described_media_type(client: TestClient, path: str) -> None:
    """The content type of an answer is the one in the document."""
    response = client.get(path)
    assert (
        response.headers["Content-Type"].partition(";")[0]
        in DESCRIPTION["paths"][path]["get"]["responses"]["200"]["content"]
    )


def test_answers_conform(
    client: TestClient, score: Callable[[object], Any], picture: Callable[..., str]
) -> None:
    """Scores, version and problems are as described."""
    conforms("Scores", score({"input": [picture()]}).json())
    conforms("Version", client.get("/version").json())
    for response in (score({"input": ["?"]}), client.get("/nowhere"), client.get("/score")):
        conforms("Problem", response.json())


def test_example_scores(score: Callable[[object], Any]) -> None:
    """The example in the document can be sent as it is."""
    assert score(DESCRIPTION["components"]["schemas"]["Pictures"]["example"]).status_code == 200
