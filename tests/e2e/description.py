"""What the sample application says of itself in its OpenAPI document: the requests it takes, and the answers it gives to them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it carries no types

from bench.application import ROOT
from tests.e2e.wire import Answer

DOCUMENT: dict[str, Any] = json.loads((ROOT / "app" / "openapi.json").read_text(encoding="utf-8"))
PROBLEM = "application/problem+json"
OPERATIONS: dict[str, tuple[str, ...]] = {
    path: tuple(method.upper() for method in item) for path, item in DOCUMENT["paths"].items()
}


def assert_described(answer: Answer, method: str, path: str) -> None:
    """Holds an answer of the application against its document: the status, the headers, the media type and the body.

    A path that the document has not is a 404, a method that a path has not is a 405; both are problems as all others are.
    """
    methods = OPERATIONS.get(path, ())
    if method == "HEAD" and "GET" in methods:
        method = "GET"
    if method not in methods:
        assert answer.status == (405 if methods else 404), (method, path, answer)
        assert not methods or set(methods) <= set(answer.headers["Allow"].split(", ")) <= {
            *methods,
            "HEAD",
        }, answer
        response = _resolved({"$ref": "#/components/responses/Malformed"})
    else:
        responses = DOCUMENT["paths"][path][method.lower()]["responses"]
        assert str(answer.status) in responses, (method, path, answer)
        response = _resolved(responses[str(answer.status)])
    _assert_headers(answer, response)
    if answer.body:
        _assert_body(answer, response["content"])


def _assert_headers(answer: Answer, response: dict[str, Any]) -> None:
    for name, found in response["headers"].items():
        header = _resolved(found)
        assert name in answer.headers, (name, answer)
        _validator(header["schema"]).validate(answer.headers[name])


def _assert_body(answer: Answer, content: dict[str, Any]) -> None:
    kind = answer.headers["Content-Type"].partition(";")[0]
    assert kind in content, answer
    value: Any = json.loads(answer.body) if kind.endswith("json") else answer.body.decode()
    _validator(content[kind]["schema"]).validate(value)
    if kind == PROBLEM:
        assert value["status"] == answer.status


def _validator(schema: dict[str, Any]) -> Any:
    return Draft202012Validator({"allOf": [schema], "components": DOCUMENT["components"]})


def _resolved(found: Any) -> Any:
    while "$ref" in found:
        here: Any = DOCUMENT
        for key in found["$ref"].removeprefix("#/").split("/"):
            here = here[key]
        found = here
    return found


def conforming(schema: dict[str, Any], texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Values that a schema of the document allows; `texts` are what stands for a file in base64."""
    schema = _resolved(schema)
    if "anyOf" in schema:
        return st.one_of([conforming(option, texts) for option in schema["anyOf"]])
    if schema["type"] == "object":
        known = {key: conforming(value, texts) for key, value in schema["properties"].items()}
        surplus = st.dictionaries(
            st.text(max_size=9).filter(lambda key: key not in known), ANYTHING, max_size=2
        )
        return st.builds(lambda more, fixed: more | fixed, surplus, st.fixed_dictionaries(known))
    if schema["type"] == "array":
        return st.lists(
            conforming(schema["items"], texts), min_size=schema.get("minItems", 0), max_size=4
        )
    if "contentSchema" in schema:
        return conforming(schema["contentSchema"], texts).map(json.dumps)
    assert schema["contentEncoding"] == "base64", schema
    return texts


ANYTHING: st.SearchStrategy[Any] = st.recursive(
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
def broken(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    """Values of which one part, at whatever depth, was taken out or is something else."""
    value = draw(values)
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return {name: inner for name, inner in value.items() if name != key} | draw(
            st.just({}) | broken(st.just({key: value[key]}))
        )
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        return {key: draw(broken(st.just(inner)))}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(broken(st.just(value[at]))), *value[at + 1 :]]
    if isinstance(value, str) and draw(st.booleans()):
        at = draw(st.integers(0, len(value)))
        return value[:at] + draw(st.text(max_size=3)) + value[at + draw(st.integers(0, 3)) :]
    return draw(ANYTHING)
