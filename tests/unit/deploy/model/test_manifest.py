"""Model manifests: their rules, and the canonical form."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import ManifestInvalid
from deploy.model import manifest, reading
from deploy.model.manifest import ModelFile

SHA = "0" * 64
VALUES: dict[str, Any] = {
    "schema": 1,
    "name": "digits",
    "version": "1",
    "format": "onnx",
    "files": [
        {"path": "golden/one.json", "sha256": SHA, "size": 2},
        {"path": "labels.txt", "sha256": SHA, "size": 1},
        {"path": "model.onnx", "sha256": SHA, "size": 3},
    ],
    "interface": {
        "model": "model.onnx",
        "labels": "labels.txt",
        "input": {"shape": [None, 8, 8]},
        "output": {},
        "preprocessing": {},
        "task": "image-classification",
    },
    "golden": [
        {
            "name": "one",
            "request": {
                "method": "POST",
                "path": "/score",
                "headers": {"Content-Type": "application/json"},
                "body": "golden/one.json",
            },
            "expect": {
                "status": 200,
                "within_ms": 5000.0,
                "json": [
                    {"at": "/a", "equals": "é"},
                    {"at": "/b/0", "near": 1.5, "tolerance": 0.5},
                ],
            },
        }
    ],
    "metadata": {"licence": "Apache-2.0", "accuracy": 0.9},
}


def format_text(values: Any) -> bytes:
    """Return values as canonical JSON."""
    return (
        json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    ).encode()


def change_manifest(change: Callable[[Any], object]) -> bytes:
    """Return the model manifest with a change."""
    values = copy.deepcopy(VALUES)
    change(values)
    return format_text(values)


def read_error(data: bytes) -> ManifestInvalid:
    """Return the error of a stored model manifest."""
    with pytest.raises(ManifestInvalid) as caught:
        reading.parse_model_manifest(data, on="store/models/digits/1/manifest.json")
    assert caught.value.on == "store/models/digits/1/manifest.json"
    return caught.value


def add_file(path: Any, **fields: Any) -> bytes:
    """Return the model manifest with one more file."""
    return change_manifest(
        lambda values: values["files"].append({"path": path, "sha256": SHA, "size": 1, **fields})
    )


def expect_value(**fields: Any) -> bytes:
    """Return the model manifest with one expected value."""
    return change_manifest(lambda values: values["golden"][0]["expect"].update(json=[fields]))


def test_a_published_manifest_is_read_as_it_was_written() -> None:
    """Reading and writing give the same bytes, and therefore the same digest."""
    found = reading.parse_model_manifest(format_text(VALUES), on="x")
    assert found.text == format_text(VALUES)
    assert found.model.digest == f"sha256:{hashlib.sha256(format_text(VALUES)).hexdigest()}"
    assert str(found.model) == "digits@1"
    assert found.weights == "model.onnx"


def test_unknown_keys_of_an_interface_are_kept() -> None:
    """The application finds its own part of the description unchanged."""
    data = change_manifest(
        lambda values: values["interface"].update(windows=[1, 2.5, None, {"deep": "é"}])
    )
    assert json.loads(reading.parse_model_manifest(data, on="x").text)["interface"]["windows"] == [
        1,
        2.5,
        None,
        {"deep": "é"},
    ]


@pytest.mark.parametrize(
    "other",
    [
        json.dumps(VALUES, sort_keys=True, separators=(",", ":")).encode() + b"\n",
        format_text(VALUES)[:-1],
        format_text(VALUES) + b"\n",
        format_text(VALUES).replace(b'"schema":1', b'"schema": 1'),
        format_text(VALUES).replace(b'{"files"', b'{"format":"onnx","files"', 1),
        format_text(VALUES).replace(b"5000.0", b"5000"),
        format_text(VALUES).replace(b'"name":"digits"', b'"name":"other","name":"digits"'),
    ],
)
def test_other_json_of_the_same_values_is_refused(other: bytes) -> None:
    """Two texts of one model would be two digests of one model."""
    assert "canonical JSON" in read_error(other).what


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'{"schema":1}',
        b"{",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b"1" * 5000,
        b'"\\ud800"',
    ],
)
def test_a_document_that_is_not_a_manifest_is_refused(bad: bytes) -> None:
    """The error names the file."""
    read_error(bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_release_error(data: bytes) -> None:
    """The parser raises no other error."""
    with pytest.raises(ManifestInvalid):
        reading.parse_model_manifest(data, on="x")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(
        ["files", "interface", "golden", "metadata", "name", "version", "schema", "format"]
    ),
    JSON,
)
def test_any_values_are_a_manifest_or_a_release_error(key: str, value: object) -> None:
    """A manifest that is accepted is canonical JSON."""
    data = (
        json.dumps({**VALUES, key: value}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    )
    try:
        found = reading.parse_model_manifest(data, on="x")
    except ManifestInvalid:
        return
    assert found.text == data


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"[" * 300 + b"]" * 300]
)
def test_values_that_cannot_be_written_as_json_are_refused(value: bytes) -> None:
    """Metadata may have any value that JSON has."""
    read_error(format_text(VALUES).replace(b"0.9", value))


def test_a_manifest_that_is_too_large_is_not_parsed() -> None:
    """It has room for 10,000 files; large data belongs in files of the model."""
    largest = change_manifest(lambda values: values["metadata"].update(notes="x" * 4_000_000))
    assert reading.parse_model_manifest(largest, on="x").name == "digits"
    too_large = b"[" * (manifest.MAX_MANIFEST_BYTES + 1)
    assert "more than 4194304 bytes" in read_error(too_large).what


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("owner", lambda values: values.update(owner="me")),
        ("files.0.mode", lambda values: values["files"][0].update(mode=7)),
        ("golden.0.retries", lambda values: values["golden"][0].update(retries=3)),
        (
            "golden.0.request.url",
            lambda values: values["golden"][0]["request"].update(url="http://x"),
        ),
        ("golden.0.expect.body", lambda values: values["golden"][0]["expect"].update(body="x")),
        (
            "golden.0.expect.json.0.like",
            lambda values: values["golden"][0]["expect"]["json"][0].update(like="x"),
        ),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(
    where: str, change: Callable[[Any], object]
) -> None:
    """A mistyped key must not be ignored."""
    assert read_error(change_manifest(change)).detail.strip().startswith(f"{where}: ")


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("schema", lambda values: values.update(schema=2)),
        ("format", lambda values: values.update(format="pickle")),
        ("name", lambda values: values.update(name="../digits")),
        ("version", lambda values: values.update(version="1/2")),
        ("version", lambda values: values.update(version="latest")),
        ("files", lambda values: values.update(files=[])),
        ("golden", lambda values: values.update(golden=[])),
        ("golden", lambda values: values.pop("golden")),
        ("interface.model", lambda values: values["interface"].pop("model")),
        ("interface.labels", lambda values: values["interface"].update(labels=[])),
        ("metadata", lambda values: values.update(metadata=[])),
        ("files.0.size", lambda values: values["files"][0].update(size=-1)),
        ("files.0.size", lambda values: values["files"][0].update(size=1.5)),
        ("files.0.sha256", lambda values: values["files"][0].update(sha256="A" * 64)),
        ("golden.0.name", lambda values: values["golden"][0].update(name="a b")),
        (
            "golden.0.request.method",
            lambda values: values["golden"][0]["request"].update(method="DELETE"),
        ),
        (
            "golden.0.request.path",
            lambda values: values["golden"][0]["request"].update(path="http://other/"),
        ),
        (
            "golden.0.request.path",
            lambda values: values["golden"][0]["request"].update(path="/a b"),
        ),
        (
            "golden.0.request.headers.A",
            lambda values: values["golden"][0]["request"].update(headers={"A": "b\r\nEvil: c"}),
        ),
        ("golden.0.expect.status", lambda values: values["golden"][0]["expect"].update(status=99)),
        *(
            (
                "golden.0.expect.within_ms",
                lambda values, value=value: values["golden"][0]["expect"].update(within_ms=value),
            )
            for value in (0, -1.0, 3_600_001, 1e300, float("nan"), float("inf"), 10**4000)
        ),
        *(
            (
                f"golden.0.expect.json.0.{key}",
                lambda values, key=key, value=value: values["golden"][0]["expect"].update(
                    json=[{"at": "", "near": 1.0, key: value}]
                ),
            )
            for key in ("near", "tolerance")
            for value in (float("nan"), float("inf"), 10**4000)
        ),
    ],
)
def test_an_invalid_value_is_refused_with_its_path(
    where: str, change: Callable[[Any], object]
) -> None:
    """The error has the path of the value."""
    detail = read_error(change_manifest(change)).detail
    assert detail.strip().startswith(f"{where}: ")
    assert len(detail.splitlines()) == 1


def test_of_many_problems_the_first_are_reported() -> None:
    """A hostile model manifest does not fill the log."""
    error = read_error(
        change_manifest(lambda values: values.update({f"k{n}": 1 for n in range(50_000)}))
    )
    assert error.what == "the model's description has 50000 problems"
    assert error.detail.splitlines()[-1] == "  and 49980 more"
    long = read_error(change_manifest(lambda values: values.update({"k" * 100_000: 1})))
    assert len(long.detail) < 400


def test_all_problems_are_reported_at_once() -> None:
    """An author can fix all of them in one step."""
    error = read_error(
        change_manifest(lambda values: values.update(name="A", version="", owner="me"))
    )
    assert error.what == "the model's description has 3 problems"
    assert len(error.detail.splitlines()) == 3


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../model.onnx",
        "a/../../b",
        "a/..",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "C:evil",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "manifest.json",
        ".wh.model.onnx",
        "golden/.wh..wh..opq",
        "x" * 201,
        7,
    ],
)
def test_a_path_that_is_not_plain_and_relative_is_refused(path: object) -> None:
    """No file leaves its folder, replaces the model manifest, or deletes another file."""
    assert "files.3.path" in read_error(add_file(path)).detail


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b/c.bin",
        "name with spaces.txt",
        "größe/模型.bin",
        "..a",
        ".hidden",
        "a.wh.b",
        "x" * 200,
    ],
)
def test_a_plain_path_is_accepted(path: str) -> None:
    """Other names are allowed."""
    files = reading.parse_model_manifest(
        change_manifest(
            lambda values: values["files"].append({"path": path, "sha256": SHA, "size": 1})
        ),
        on="x",
    ).files
    assert files[-1] == ModelFile(path=path, size=1, sha256=SHA)


def test_a_file_cannot_be_a_link() -> None:
    """The format has no links; an additional key of a file is refused."""
    for word in ("link", "target", "type", "symlink"):
        assert (
            f"files.3.{word}: unknown key"
            in read_error(add_file("x", **{word: "/etc/passwd"})).detail
        )


def test_the_error_of_a_stored_manifest_suggests_a_new_version() -> None:
    """A version never changes, but an author can change the description."""
    assert "publish the model again under a new version" in read_error(add_file("/etc/passwd")).next


def test_a_file_that_is_listed_twice_is_refused() -> None:
    """One path has one content."""
    assert "files names 'labels.txt' twice" in read_error(add_file("labels.txt")).detail


@pytest.mark.parametrize("path", ["labels.txt/more", "model.onnx/a/b", "golden"])
def test_a_file_that_is_the_folder_of_another_is_refused(path: str) -> None:
    """No file system can have both."""
    assert "is a file and the folder of another" in read_error(add_file(path)).detail


def add_bodies(*sizes: int) -> bytes:
    """Return a model manifest with golden cases whose bodies have those sizes."""

    def add(values: Any) -> None:
        names = [f"golden/{number}.json" for number in range(len(sizes))]
        values["files"][:1] = [
            {"path": name, "sha256": SHA, "size": size}
            for name, size in zip(names, sizes, strict=True)
        ]
        values["golden"] = [
            {"name": f"case-{number}", "request": {"path": "/", "body": name}, "expect": {}}
            for number, name in enumerate(names)
        ]

    return change_manifest(add)


def test_request_bodies_that_are_too_large_are_refused() -> None:
    """The sum of all bodies is limited; other files may have any size."""
    half = manifest.MAX_BODIES // 2
    assert reading.parse_model_manifest(add_bodies(half, half), on="m").golden
    assert "golden cases have more than" in read_error(add_bodies(half, half + 1)).detail
    assert reading.parse_model_manifest(
        change_manifest(lambda values: values["files"][-1].update(size=1 << 40)), on="m"
    ).golden


@pytest.mark.parametrize(
    ("missing", "change"),
    [
        ("model.onnx", lambda values: values["files"].pop(2)),
        ("labels.txt", lambda values: values["files"].pop(1)),
        ("golden/one.json", lambda values: values["files"].pop(0)),
    ],
)
def test_a_file_that_is_used_must_be_listed(missing: str, change: Callable[[Any], object]) -> None:
    """Weights, labels and request bodies are files of the model."""
    assert (
        f"{missing!r} is used but is not one of the files"
        in read_error(change_manifest(change)).detail
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"at": "/a"},
        {"at": "/a", "equals": 1, "near": 1.0},
        {"at": "/a", "near": None},
        {"at": "a", "equals": 1},
        {"at": "/a", "near": 1.0, "tolerance": -1.0},
        {"at": "/a", "equals": [1]},
    ],
)
def test_an_expected_value_has_exactly_one_comparison(fields: dict[str, Any]) -> None:
    """A value equals another or is near a number, and not both or neither."""
    assert "golden.0.expect.json.0" in read_error(expect_value(**fields)).detail


@pytest.mark.parametrize("value", ["x", "", 1, 1.0, True, False, None])
def test_an_expected_value_keeps_its_type(value: object) -> None:
    """True is not 1, 1 is not 1.0, and null can be expected."""
    found = (
        reading.parse_model_manifest(expect_value(at="", equals=value), on="x")
        .golden[0]
        .expect.json_[0]
    )
    assert (found.equals, type(found.equals), found.near) == (value, type(value), None)


def test_request_bodies_come_first_in_the_layer() -> None:
    """The golden cases can be read without the weights, whatever the names are."""
    data = change_manifest(
        lambda values: values["files"].insert(
            0, {"path": "a-large-one.bin", "sha256": SHA, "size": 1}
        )
    )
    assert [
        file.path for file in reading.parse_model_manifest(data, on="x").files_in_layer_order
    ] == [
        "golden/one.json",
        "a-large-one.bin",
        "labels.txt",
        "model.onnx",
    ]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"path": "/../../../secrets/registry"}, "the path must not lead out of the application"),
        ({"path": "/%2e%2e/secrets"}, "the path must not lead out of the application"),
        ({"headers": {"Impersonate-User": "admin"}}, "must not set the header Impersonate-User"),
        ({"headers": {"authorization": "Bearer x"}}, "must not set the header authorization"),
        ({"headers": {"Host": "other"}}, "must not set the header Host"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "must not set the header"),
        ({"headers": {"X-Remote-User": "admin"}}, "must not set the header X-Remote-User"),
    ],
)
def test_a_golden_case_stays_in_the_application(changed: dict[str, Any], problem: str) -> None:
    """Its request is sent with the deployer's credentials where a gateway is on the way."""
    values = copy.deepcopy(VALUES)
    values["golden"][0]["request"] |= changed
    with pytest.raises(ManifestInvalid) as caught:
        reading.validate(manifest.ModelManifest, values, "here")
    assert problem in str(caught.value.detail)
