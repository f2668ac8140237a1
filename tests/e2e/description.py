"""The OpenAPI document of the sample application: its requests and responses."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types

from bench.application import ROOT
from tests.e2e.wire import Response

DOCUMENT: dict[str, Any] = json.loads((ROOT / "app" / "openapi.json").read_text(encoding="utf-8"))
PROBLEM = "application/problem+json"
OPERATIONS: dict[str, tuple[str, ...]] = {
    path: tuple(method.upper() for method in item) for path, item in DOCUMENT["paths"].items()
}


def assert_documented(response: Response, method: str, path: str) -> None:
    """Check the status, headers, media type and body of a response against the document.

    An unknown path is a 404 and an unknown method of a path is a 405, each with a problem document.
    """
    methods = OPERATIONS.get(path, ())
    if method == "HEAD" and "GET" in methods:
        method = "GET"
    if method not in methods:
        assert response.status == (405 if methods else 404), (method, path, response)
        assert not methods or set(methods) <= set(response.headers["Allow"].split(", ")) <= {
            *methods,
            "HEAD",
        }, response
        documented = _resolve({"$ref": "#/components/responses/Malformed"})
    else:
        responses = DOCUMENT["paths"][path][method.lower()]["responses"]
        assert str(response.status) in responses, (method, path, response)
        documented = _resolve(responses[str(response.status)])
    _assert_headers(response, documented)
    if response.body:
        _assert_body(response, documented["content"])


def _assert_headers(response: Response, documented: dict[str, Any]) -> None:
    for name, found in documented["headers"].items():
        header = _resolve(found)
        assert name in response.headers, (name, response)
        _validator(header["schema"]).validate(response.headers[name])


def _assert_body(response: Response, content: dict[str, Any]) -> None:
    media_type = response.headers["Content-Type"].partition(";")[0]
    assert media_type in content, response
    value: Any = (
        json.loads(response.body) if media_type.endswith("json") else response.body.decode()
    )
    _validator(content[media_type]["schema"]).validate(value)
    if media_type == PROBLEM:
        assert value["status"] == response.status


def _validator(schema: dict[str, Any]) -> Any:
    return Draft202012Validator({"allOf": [schema], "components": DOCUMENT["components"]})


def _resolve(found: Any) -> Any:
    while "$ref" in found:
        here: Any = DOCUMENT
        for key in found["$ref"].removeprefix("#/").split("/"):
            here = here[key]
        found = here
    return found


def valid_values(schema: dict[str, Any], texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Return values that a schema of the document allows.

    Args:
        schema: a part of the document.
        texts: the values of a file in base64.
    """
    schema = _resolve(schema)
    if "anyOf" in schema:
        return st.one_of([valid_values(option, texts) for option in schema["anyOf"]])
    if schema["type"] == "object":
        known = {key: valid_values(value, texts) for key, value in schema["properties"].items()}
        surplus = st.dictionaries(
            st.text(max_size=9).filter(lambda key: key not in known), ANY_JSON, max_size=2
        )
        return st.builds(lambda more, fixed: more | fixed, surplus, st.fixed_dictionaries(known))
    if schema["type"] == "array":
        return st.lists(
            valid_values(schema["items"], texts), min_size=schema.get("minItems", 0), max_size=4
        )
    if "contentSchema" in schema:
        return valid_values(schema["contentSchema"], texts).map(json.dumps)
    assert schema["contentEncoding"] == "base64", schema
    return texts


ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def broken_values(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    """Return values with one part, at any depth, removed or replaced."""
    value = draw(values)
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return {name: inner for name, inner in value.items() if name != key} | draw(
            st.just({}) | broken_values(st.just({key: value[key]}))
        )
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        return {key: draw(broken_values(st.just(inner)))}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(broken_values(st.just(value[at]))), *value[at + 1 :]]
    if isinstance(value, str) and draw(st.booleans()):
        at = draw(st.integers(0, len(value)))
        return value[:at] + draw(st.text(max_size=3)) + value[at + draw(st.integers(0, 3)) :]
    return draw(ANY_JSON)
