"""Golden cases without a server: where a pointer leads, what counts as a hit, and the proof at the head of a layer."""

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
from deploy.model import golden, manifest
from deploy.model.manifest import (
    ExpectedResponse,
    ExpectedValue,
    GoldenCase,
    GoldenRequest,
    ModelManifest,
)
from deploy.records import Model

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
def test_the_examples_of_the_specification_are_found(pointer: str, value: object) -> None:
    """RFC 6901, section 5."""
    assert golden.value_at(RFC_6901, pointer) == value


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
def test_a_pointer_that_leads_nowhere_finds_nothing(document: object, pointer: str) -> None:
    """Nothing is not null: an answer that lacks a place does not have null there."""
    assert golden.value_at(document, pointer) is golden.NOTHING


def test_percent_signs_and_tildes_are_read_once() -> None:
    """A pointer in JSON is not one in a URL, and ~01 is a tilde and a one."""
    assert golden.value_at({"a%20b": 1, "a b": 2}, "/a%20b") == 1
    assert golden.value_at({"~1": 1, "/": 2}, "/~01") == 1


@given(st.dictionaries(st.text(), st.integers() | st.lists(st.integers()), min_size=1))
def test_every_place_has_a_pointer(document: dict[str, Any]) -> None:
    """Whatever a key is, escaping it leads there."""
    for key, value in document.items():
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        assert golden.value_at(document, pointer) == value


def judged(content: bytes, *expected: ExpectedValue, status: int = 200) -> tuple[str, str]:
    """The answer in short and the problem, for an answer that should have status 200 and those places."""
    case = GoldenCase(
        name="a",
        request=GoldenRequest(path="/"),
        expect=ExpectedResponse.model_validate({"json": expected}),
    )
    return golden.compare_response(case.expect, status, content)


def problem(answer: object, **expected: Any) -> str:
    """What is wrong with an answer that should hold that at /a."""
    return judged(json.dumps({"a": answer}).encode(), ExpectedValue(at="/a", **expected))[1]


@pytest.mark.parametrize("value", ["espresso", "", 1, 1.5, True, False, None])
def test_the_promised_value_is_a_hit(value: object) -> None:
    """A value of every type can be promised and kept."""
    assert problem(value, equals=value) == ""


@pytest.mark.parametrize(
    ("promised", "answer"),
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
def test_another_value_or_type_is_a_miss(promised: object, answer: object) -> None:
    """What looks alike in Python is told apart as JSON tells it apart."""
    assert problem(answer, equals=promised) == f"/a: expected {promised!r}, got {answer!r}"


def test_a_missing_place_is_a_miss_even_for_null() -> None:
    """Null was promised, and is not what a missing member is."""
    assert judged(b"{}", ExpectedValue(at="/a", equals=None))[1] == "/a: expected None, got nothing"
    assert (
        judged(b"{}", ExpectedValue(at="/a", near=1.0))[1]
        == "/a: expected 1.0 within 0.0, got nothing"
    )


@pytest.mark.parametrize("answer", [94.0, 96.0, 95, 95.5])
def test_a_number_within_the_tolerance_is_a_hit(answer: float) -> None:
    """The edges belong to it, and whole numbers are numbers."""
    assert problem(answer, near=95.0, tolerance=1.0) == ""


@pytest.mark.parametrize(
    "answer",
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
def test_everything_else_is_not_near(answer: object) -> None:
    """No text, no truth value, nothing infinite and no number beyond all floats is near a number."""
    assert problem(True, near=1.0) == "/a: expected 1.0 within 0.0, got True"  # noqa: FBT003 - an answer
    assert problem(answer, near=95.0, tolerance=1.0).startswith(
        "/a: expected 95.0 within 1.0, got "
    )


def test_no_tolerance_means_that_very_number() -> None:
    """Near without a tolerance is equal, of whatever type of number."""
    assert problem(1, near=1.0) == ""
    assert problem(1.0000001, near=1.0) != ""


def test_every_place_is_compared_and_every_miss_is_said() -> None:
    """One case can promise several places; the answer shows what was found at each."""
    answer, wrong = judged(
        b'{"a": "x", "b": 2, "c": "z"}',
        ExpectedValue(at="/a", equals="x"),
        ExpectedValue(at="/b", near=1.0),
        ExpectedValue(at="/c", equals="y"),
    )
    assert answer == "x, 2, z"
    assert wrong == "/b: expected 1.0 within 0.0, got 2; /c: expected 'y', got 'z'"


def test_another_status_is_a_miss_whatever_the_body_says() -> None:
    """The status is a promise of its own, and its body shows why it was broken."""
    assert judged(b'{"a": 1}', ExpectedValue(at="/a", equals=1), status=500) == (
        '{"a": 1}',
        'expected status 200, got 500: {"a": 1}',
    )


def test_an_answer_without_promised_places_need_not_be_json() -> None:
    """A case may promise no more than a status."""
    assert judged(b"Healthy") == ("Healthy", "")


@pytest.mark.parametrize(
    ("content", "problem"),
    [("seven, surely", ""), ("a four", "expected 'seven' in the response, got: a four")],
)
def test_an_answer_of_another_form_must_hold_the_promised_text(content: str, problem: str) -> None:
    """An application that answers in plain text or HTML has something to promise, too."""
    case = GoldenCase(
        name="a", request=GoldenRequest(path="/"), expect=ExpectedResponse(contains="seven")
    )
    assert golden.compare_response(case.expect, 200, content.encode()) == (content, problem)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"]
)
def test_an_answer_that_is_no_json_is_a_miss(content: bytes) -> None:
    """Whatever comes back, playing a case ends with a verdict."""
    assert judged(content, ExpectedValue(at="/a", equals=1))[1].startswith("expected JSON, got: ")


def test_a_long_value_is_shown_in_short() -> None:
    """A verdict fits on a screen, whatever a server sends."""
    answer, wrong = judged(
        json.dumps({"a": "x" * 500_000}).encode(), ExpectedValue(at="/a", equals="y")
    )
    assert max(len(answer), len(wrong)) < 300
    assert len(judged(b"x" * 500_000, status=404)[1]) < 300


def published(body: bytes = b'{"input": []}') -> ModelManifest:
    """A manifest whose golden request comes after the weights by name."""
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


def shipped(
    found: ModelManifest, root: str = "model", body: bytes = b'{"input": []}'
) -> io.BytesIO:
    """The layer of a manifest's model."""
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
def test_the_proof_is_read_from_the_head_of_the_layer(root: str) -> None:
    """Cases and requests are had without the weights, wherever in the image the model is."""
    found = published()
    stream = shipped(found, root)
    proof = golden.read_golden_set(found.model, stream)
    assert proof.cases == found.golden
    assert proof.bodies == {"requests/z.json": b'{"input": []}'}
    assert stream.tell() < 50_000


def test_a_layer_of_another_model_is_refused() -> None:
    """The proof of one model says nothing of another."""
    found = published()
    other = Model(name="m", version="1", digest="sha256:" + "0" * 64)
    with pytest.raises(ManifestInvalid, match="the layer has the model m@1") as caught:
        golden.read_golden_set(other, shipped(found))
    assert found.model.digest in caught.value.what
    assert other.digest in caught.value.what


@pytest.mark.parametrize(
    "body",
    [b"", b'{"input": [1]}', b'{"input": []}' + bytes(100_000_000)],
    ids=["none", "another", "longer"],
)
def test_a_layer_with_another_request_than_described_is_refused(body: bytes) -> None:
    """It would prove something else; and whatever its length, no more of it is read than the manifest says."""
    found = published()
    stream = shipped(found, body=body)
    with pytest.raises(ManifestInvalid, match="not the one in the model manifest") as caught:
        golden.read_golden_set(found.model, stream)
    assert caught.value.on == "m@1, requests/z.json"
    assert stream.tell() < 50_000


def test_a_layer_without_a_golden_request_is_refused() -> None:
    """A request that is promised and not there is said, though all else was read in looking for it."""
    found = published()
    sink = io.BytesIO()
    layer.write_layer(
        [layer.Entry(PurePosixPath("model/manifest.json"), len(found.text), [found.text])], sink
    )
    sink.seek(0)
    with pytest.raises(ManifestInvalid, match="ends before its golden cases"):
        golden.read_golden_set(found.model, sink)


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 1000, bytes(10240)])
def test_what_is_no_layer_is_refused(data: bytes) -> None:
    """Damaged bytes from a registry are an error that says what to do."""
    with pytest.raises(ManifestInvalid) as caught:
        golden.read_golden_set(published().model, io.BytesIO(data))
    assert "fetch the model again" in caught.value.next


@pytest.mark.parametrize("share", range(1, 10))
def test_a_layer_that_breaks_off_is_refused(share: int) -> None:
    """Wherever a connection ends before the proof is whole, there is no proof."""
    found = published()
    whole = shipped(found).getvalue()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        request = archive.getmember("model/requests/z.json")
    cut = (request.offset_data + request.size - 1) * share // 9
    with pytest.raises(ManifestInvalid):
        golden.read_golden_set(found.model, io.BytesIO(whole[:cut]))
