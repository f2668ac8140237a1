"""Golden cases without a server: JSON pointers, comparisons, and golden sets in layers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import ManifestInvalid
from deploy.image import layer
from deploy.model import golden_cases, manifest
from deploy.model.manifest import (
    ExpectedResponse,
    ExpectedValue,
    GoldenCase,
    GoldenRequest,
    ModelManifest,
)
from deploy.records import Model
from tests.fakes.endpoints import endpoint_with

RFC_6901 = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
WEIGHTS = b"\x08" + bytes(3_000_000)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC_6901),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_the_specification_have_their_values(pointer: str, value: object) -> None:
    """The examples are those of RFC 6901, section 5."""
    assert golden_cases.value_at(RFC_6901, pointer) == value


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        (RFC_6901, "/nowhere"),
        (RFC_6901, "/foo/2"),
        (RFC_6901, "/foo/-"),
        (RFC_6901, "/foo/-1"),
        (RFC_6901, "/foo/01"),
        (RFC_6901, "/foo/ 1"),
        (RFC_6901, "/foo/\u0661"),
        (RFC_6901, "/foo/bar"),
        (RFC_6901, "/foo/0/0"),
        (RFC_6901, "//"),
        ([0], "/" + "9" * 5000),
        (None, "/a"),
        ("text", "/0"),
    ],
)
def test_a_pointer_without_a_value_returns_nothing(document: object, pointer: str) -> None:
    """Nothing is not null: a response without a member does not have null there."""
    assert golden_cases.value_at(document, pointer) is golden_cases.NOTHING


def test_percent_signs_and_tildes_are_decoded_once() -> None:
    """A JSON pointer has no percent-encoding, and ~01 is a tilde and a one."""
    assert golden_cases.value_at({"a%20b": 1, "a b": 2}, "/a%20b") == 1
    assert golden_cases.value_at({"~1": 1, "/": 2}, "/~01") == 1


@given(st.dictionaries(st.text(), st.integers() | st.lists(st.integers()), min_size=1))
def test_every_key_has_a_pointer(document: dict[str, Any]) -> None:
    """Any key can be written as a pointer by escaping it."""
    for key, value in document.items():
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        assert golden_cases.value_at(document, pointer) == value


def compare_values(content: bytes, *expected: ExpectedValue, status: int = 200) -> tuple[str, str]:
    """Return the short response and the problem of a response that must have those values."""
    case = GoldenCase(
        name="a",
        request=GoldenRequest(path="/"),
        expect=ExpectedResponse.model_validate({"json": expected}),
    )
    return golden_cases.compare_response(case.expect, status, content)


def describe_problem(value: object, **expected: Any) -> str:
    """Return the problem of a value at /a."""
    return compare_values(json.dumps({"a": value}).encode(), ExpectedValue(at="/a", **expected))[1]


@pytest.mark.parametrize("value", ["espresso", "", 1, 1.5, True, False, None])
def test_the_expected_value_is_a_hit(value: object) -> None:
    """Values of every JSON type can be expected."""
    assert describe_problem(value, equals=value) == ""


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("a", "b"),
        (1, True),
        (1, 1.0),
        (0, False),
        (None, 0),
        ("1", 1),
        ("None", None),
        ("a", ["a"]),
        (True, 1),
    ],
)
def test_another_value_or_type_is_a_miss(wanted: object, value: object) -> None:
    """Values that Python takes for equal are different if their JSON types are."""
    assert describe_problem(value, equals=wanted) == f"/a: expected {wanted!r}, got {value!r}"


def test_a_missing_member_is_a_miss_even_if_null_is_expected() -> None:
    """A missing member is not null."""
    assert (
        compare_values(b"{}", ExpectedValue(at="/a", equals=None))[1]
        == "/a: expected None, got nothing"
    )
    assert (
        compare_values(b"{}", ExpectedValue(at="/a", near=1.0))[1]
        == "/a: expected 1.0 within 0.0, got nothing"
    )


@pytest.mark.parametrize("value", [94.0, 96.0, 95, 95.5])
def test_a_number_within_the_tolerance_is_a_hit(value: float) -> None:
    """The limits are included, and whole numbers are numbers."""
    assert describe_problem(value, near=95.0, tolerance=1.0) == ""


@pytest.mark.parametrize(
    "value",
    [
        93.99,
        96.01,
        "95",
        True,
        None,
        [95],
        pytest.param(10**400, id="huge"),
        float("nan"),
        float("inf"),
        -float("inf"),
    ],
)
def test_other_values_are_not_near(value: object) -> None:
    """A text, a truth value, an infinite or a huge number is not near a number."""
    assert describe_problem(True, near=1.0) == "/a: expected 1.0 within 0.0, got True"  # noqa: FBT003 - an answer
    assert describe_problem(value, near=95.0, tolerance=1.0).startswith(
        "/a: expected 95.0 within 1.0, got "
    )


def test_without_a_tolerance_only_the_same_number_is_near() -> None:
    """A whole number may equal a fraction."""
    assert describe_problem(1, near=1.0) == ""
    assert describe_problem(1.0000001, near=1.0) != ""


def test_every_value_is_compared_and_every_miss_is_reported() -> None:
    """One case can expect several values; the short response has all of them."""
    value, wrong = compare_values(
        b'{"a": "x", "b": 2, "c": "z"}',
        ExpectedValue(at="/a", equals="x"),
        ExpectedValue(at="/b", near=1.0),
        ExpectedValue(at="/c", equals="y"),
    )
    assert value == "x, 2, z"
    assert wrong == "/b: expected 1.0 within 0.0, got 2; /c: expected 'y', got 'z'"


def test_another_status_is_a_miss_with_any_body() -> None:
    """The problem has the body, which may show the reason."""
    assert compare_values(b'{"a": 1}', ExpectedValue(at="/a", equals=1), status=500) == (
        '{"a": 1}',
        'expected status 200, got 500: {"a": 1}',
    )


def test_a_response_without_expected_values_need_not_be_json() -> None:
    """A case may expect nothing but a status."""
    assert compare_values(b"Healthy") == ("Healthy", "")


@pytest.mark.parametrize(
    ("content", "problem"),
    [("seven, surely", ""), ("a four", "expected 'seven' in the response, got: a four")],
)
def test_a_response_that_is_not_json_must_have_the_expected_text(
    content: str, problem: str
) -> None:
    """An application may respond with plain text or HTML."""
    case = GoldenCase(
        name="a", request=GoldenRequest(path="/"), expect=ExpectedResponse(contains="seven")
    )
    assert golden_cases.compare_response(case.expect, 200, content.encode()) == (content, problem)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"]
)
def test_a_response_that_is_not_json_is_a_miss(content: bytes) -> None:
    """Any response gives a verdict and no error."""
    assert compare_values(content, ExpectedValue(at="/a", equals=1))[1].startswith(
        "expected JSON, got: "
    )


def test_a_long_value_is_shortened() -> None:
    """A verdict fits on a screen."""
    value, wrong = compare_values(
        json.dumps({"a": "x" * 500_000}).encode(), ExpectedValue(at="/a", equals="y")
    )
    assert max(len(value), len(wrong)) < 300
    assert len(compare_values(b"x" * 500_000, status=404)[1]) < 300


def test_what_a_hostile_model_expects_is_shortened() -> None:
    """The manifest may have a megabyte of it."""
    many = [ExpectedValue(at=f"/{'x' * 5000}", equals="y" * 5000)] * 100
    value, wrong = compare_values(b"{}", *many)
    assert max(len(value), len(wrong)) < 1100
    case = GoldenCase(
        name="a", request=GoldenRequest(path="/"), expect=ExpectedResponse(contains="z" * 9000)
    )
    assert len(golden_cases.compare_response(case.expect, 200, b"x")[1]) < 300


@pytest.mark.parametrize("depth", [*range(100, 1000, 100), *range(900, 1000), 5000, 50_000])
def test_a_value_of_any_depth_gives_a_verdict(depth: int) -> None:
    """It can be just shallow enough to be read, and too deep to be written."""
    content = b"[" * depth + b"]" * depth
    assert compare_values(content, ExpectedValue(at="", equals=1))[1] != ""


def create_manifest(body: bytes = b'{"input": []}') -> ModelManifest:
    """Return a model manifest whose request body comes after the weights by name."""
    files = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in (("a.onnx", WEIGHTS), ("labels.txt", b"one\n"), ("requests/z.json", body))
    ]
    case = {
        "name": "one",
        "request": {"method": "POST", "path": "/score", "body": "requests/z.json"},
        "expect": {},
    }
    plain = {"name": "two", "request": {"path": "/healthz"}, "expect": {}}
    interface = {
        "model": "a.onnx",
        "labels": "labels.txt",
        "input": {},
        "output": {},
        "preprocessing": {},
    }
    return ModelManifest.model_validate(
        {
            "schema": 1,
            "name": "m",
            "version": "1",
            "format": "onnx",
            "interface": interface,
            "golden": [case, plain],
            "files": files,
        }
    )


def create_layer(
    found: ModelManifest, root: str = "model", body: bytes = b'{"input": []}'
) -> io.BytesIO:
    """Return the layer of a model."""
    contents = {"a.onnx": WEIGHTS, "labels.txt": b"one\n", "requests/z.json": body}

    def entries() -> Iterator[layer.Entry]:
        yield layer.Entry(
            PurePosixPath(root, manifest.PUBLISHED_FILE), len(found.text), [found.text]
        )
        for file in found.files_in_layer_order:
            yield layer.Entry(
                PurePosixPath(root, file.path), len(contents[file.path]), [contents[file.path]]
            )

    sink = io.BytesIO()
    layer.write_layer(entries(), sink)
    sink.seek(0)
    return sink


@pytest.mark.parametrize("root", ["model", "opt/models/current", "."])
def test_a_golden_set_is_read_from_the_start_of_the_layer(root: str) -> None:
    """Cases and request bodies are read without the weights, for any mount path."""
    found = create_manifest()
    stream = create_layer(found, root)
    golden_set = golden_cases.read_golden_set(found.model, stream)
    assert golden_set.cases == found.golden
    assert golden_set.bodies == {"requests/z.json": b'{"input": []}'}
    assert stream.tell() < 50_000


def test_a_layer_of_another_model_is_refused() -> None:
    """The golden cases of one model do not check another."""
    found = create_manifest()
    other = Model(name="m", version="1", digest="sha256:" + "0" * 64)
    with pytest.raises(ManifestInvalid, match="the layer has the model m@1") as caught:
        golden_cases.read_golden_set(other, create_layer(found))
    assert found.model.digest in caught.value.what
    assert other.digest in caught.value.what


@pytest.mark.parametrize(
    "body",
    [b"", b'{"input": [1]}', b'{"input": []}' + bytes(100_000_000)],
    ids=["none", "another", "longer"],
)
def test_a_layer_with_another_request_body_is_refused(body: bytes) -> None:
    """No more of the body is read than the model manifest says."""
    found = create_manifest()
    stream = create_layer(found, body=body)
    with pytest.raises(ManifestInvalid, match="not the one in the model manifest") as caught:
        golden_cases.read_golden_set(found.model, stream)
    assert caught.value.on == "m@1, requests/z.json"
    assert stream.tell() < 50_000


def test_a_layer_without_a_request_body_is_refused() -> None:
    """A missing request body is an error, even if it is found missing at the end of the layer."""
    found = create_manifest()
    sink = io.BytesIO()
    layer.write_layer(
        [layer.Entry(PurePosixPath("model/manifest.json"), len(found.text), [found.text])], sink
    )
    sink.seek(0)
    with pytest.raises(ManifestInvalid, match="ends before its golden cases"):
        golden_cases.read_golden_set(found.model, sink)


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 1000, bytes(10240)])
def test_bytes_that_are_not_a_layer_are_refused(data: bytes) -> None:
    """Damaged bytes of a registry are an error that says what to do."""
    with pytest.raises(ManifestInvalid) as caught:
        golden_cases.read_golden_set(create_manifest().model, io.BytesIO(data))
    assert "fetch the model again" in caught.value.next


@pytest.mark.parametrize("share", range(1, 10))
def test_a_truncated_layer_is_refused(share: int) -> None:
    """A connection may end before the golden cases are complete."""
    found = create_manifest()
    whole = create_layer(found).getvalue()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        request = archive.getmember("model/requests/z.json")
    cut = (request.offset_data + request.size - 1) * share // 9
    with pytest.raises(ManifestInvalid):
        golden_cases.read_golden_set(found.model, io.BytesIO(whole[:cut]))


def test_a_redirect_is_a_wrong_status_that_says_where_it_leads() -> None:
    """It is not followed."""
    case = GoldenCase(name="ready", request=GoldenRequest(path="/ready"), expect=ExpectedResponse())
    endpoint = endpoint_with(b"", 301, Location="https://app.example/ready/")
    verdict = golden_cases.play(golden_cases.GoldenSet((case,), {}), endpoint)
    assert [miss.problem for miss in verdict.misses] == [
        "expected status 200, got 301 (Location: https://app.example/ready/)"
    ]
