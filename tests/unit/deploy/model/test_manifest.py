"""The description of a model, as an author writes it and as it is published: every rule, and one form."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import ManifestInvalid
from deploy.model import manifest
from deploy.model.manifest import ModelFile, ModelManifest

DIGITS = Path(__file__).parents[3] / "models" / "digits"
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
TOML = """
name = "digits"
version = "1"
format = "onnx"
[interface]
model = "model.onnx"
labels = "labels.txt"
input = { shape = [-1, 8, 8] }
output = { shape = [-1, 10] }
preprocessing = { mean = [-1] }
[[golden]]
name = "one"
request = { path = "/healthz" }
expect = { status = 204 }
"""


def text(values: Any) -> bytes:
    """The values in the one JSON form."""
    return (
        json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    ).encode()


def changed(change: Callable[[Any], object]) -> bytes:
    """The manifest with something changed."""
    values = copy.deepcopy(VALUES)
    change(values)
    return text(values)


def refused(data: bytes) -> ManifestInvalid:
    """The error for a stored manifest of those bytes."""
    with pytest.raises(ManifestInvalid) as caught:
        manifest.parse_model_manifest(data, on="store/models/digits/1/manifest.json")
    assert caught.value.on == "store/models/digits/1/manifest.json"
    return caught.value


def with_file(path: Any, **fields: Any) -> bytes:
    """The manifest with one more file."""
    return changed(
        lambda values: values["files"].append({"path": path, "sha256": SHA, "size": 1, **fields})
    )


def expecting(**fields: Any) -> bytes:
    """The manifest with one expected place."""
    return changed(lambda values: values["golden"][0]["expect"].update(json=[fields]))


def test_a_published_manifest_is_read_as_it_was_written() -> None:
    """Reading and writing give the same bytes, over which the digest is taken."""
    found = manifest.parse_model_manifest(text(VALUES), on="x")
    assert found.text == text(VALUES)
    assert found.model.digest == f"sha256:{hashlib.sha256(text(VALUES)).hexdigest()}"
    assert str(found.model) == "digits@1"
    assert found.weights == "model.onnx"


def test_what_an_interface_says_beyond_the_needed_is_kept() -> None:
    """The application's own part of the description reaches it untouched."""
    data = changed(lambda values: values["interface"].update(windows=[1, 2.5, None, {"deep": "é"}]))
    assert json.loads(manifest.parse_model_manifest(data, on="x").text)["interface"]["windows"] == [
        1,
        2.5,
        None,
        {"deep": "é"},
    ]


@pytest.mark.parametrize(
    "other",
    [
        json.dumps(VALUES, sort_keys=True, separators=(",", ":")).encode() + b"\n",
        text(VALUES)[:-1],
        text(VALUES) + b"\n",
        text(VALUES).replace(b'"schema":1', b'"schema": 1'),
        text(VALUES).replace(b'{"files"', b'{"format":"onnx","files"', 1),
        text(VALUES).replace(b"5000.0", b"5000"),
        text(VALUES).replace(b'"name":"digits"', b'"name":"other","name":"digits"'),
    ],
)
def test_another_form_of_the_same_values_is_refused(other: bytes) -> None:
    """Two texts for one model would be two digests for one model."""
    assert "canonical JSON" in refused(other).what


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
        b"[" * 100_000,
        b"1" * 5000,
        b'"\\ud800"',
    ],
)
def test_what_is_no_manifest_at_all_is_refused(bad: bytes) -> None:
    """Whatever lies where a manifest should be, the answer is an error that names the place."""
    refused(bad)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    """Any bytes are a manifest or an error of ours."""
    with pytest.raises(ManifestInvalid):
        manifest.parse_model_manifest(data, on="x")


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
def test_no_values_crash_the_reader(key: str, value: object) -> None:
    """Any JSON at any place is a manifest, in its own form, or an error of ours."""
    data = (
        json.dumps({**VALUES, key: value}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    )
    try:
        found = manifest.parse_model_manifest(data, on="x")
    except ManifestInvalid:
        return
    assert found.text == data


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"[" * 300 + b"]" * 300]
)
def test_values_that_json_has_no_form_for_are_refused(value: bytes) -> None:
    """Free metadata is not free to make a manifest that cannot be written again."""
    refused(text(VALUES).replace(b"0.9", value))


def test_a_manifest_larger_than_a_megabyte_is_refused_unparsed() -> None:
    """Large data belongs in files; a parser never sees it."""
    largest = changed(lambda values: values["metadata"].update(notes="x" * 900_000))
    assert manifest.parse_model_manifest(largest, on="x").name == "digits"
    assert "more than 1048576 bytes" in refused(b"[" * (manifest.MAX_BYTES + 1)).what


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
def test_a_key_that_nobody_reads_is_refused_with_its_path(
    where: str, change: Callable[[Any], object]
) -> None:
    """A promise that is mistyped must not be a promise that is not kept."""
    assert refused(changed(change)).detail.strip().startswith(f"{where}: ")


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
            lambda values: values["golden"][0]["request"].update(path="http://elsewhere/"),
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
        (
            "golden.0.expect.within_ms",
            lambda values: values["golden"][0]["expect"].update(within_ms=0),
        ),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_with_its_path(
    where: str, change: Callable[[Any], object]
) -> None:
    """Each part of a manifest has a form, and the error says which part has not."""
    assert refused(changed(change)).detail.strip().startswith(f"{where}: ")


def test_every_problem_is_reported_at_once() -> None:
    """An author mends a description once."""
    error = refused(changed(lambda values: values.update(name="A", version="", owner="me")))
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
    """No file of a model lands outside its folder, in the place of the manifest, or deletes another."""
    assert "files.3.path" in refused(with_file(path)).detail


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
def test_a_plain_path_is_taken(path: str) -> None:
    """Names are otherwise free."""
    files = manifest.parse_model_manifest(
        changed(lambda values: values["files"].append({"path": path, "sha256": SHA, "size": 1})),
        on="x",
    ).files
    assert files[-1] == ModelFile(path=path, size=1, sha256=SHA)


def test_a_file_cannot_be_a_link() -> None:
    """The format has no word for one; whatever is added to a file is a key that nobody reads."""
    for word in ("link", "target", "type", "symlink"):
        assert (
            f"files.3.{word}: Extra inputs are not permitted"
            in refused(with_file("x", **{word: "/etc/passwd"})).detail
        )


def test_whoever_reads_a_stored_manifest_is_not_told_to_mend_it() -> None:
    """A version never changes; an author's description does."""
    assert "publish the model again under a new version" in refused(with_file("/etc/passwd")).next
    with pytest.raises(ManifestInvalid) as caught:
        manifest.parse_description(
            TOML.replace('format = "onnx"', 'format = "pickle"').encode(), on="model.toml"
        )
    assert "fix them" in caught.value.next


def test_a_file_given_twice_is_refused() -> None:
    """One name has one content."""
    assert "files names 'labels.txt' twice" in refused(with_file("labels.txt")).detail


@pytest.mark.parametrize("path", ["labels.txt/more", "model.onnx/a/b", "golden"])
def test_a_file_that_is_the_folder_of_another_is_refused(path: str) -> None:
    """No file system could hold both."""
    assert "is a file and the folder of another" in refused(with_file(path)).detail


def with_bodies(*sizes: int) -> bytes:
    """A manifest with so many golden cases, whose bodies have those sizes."""

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

    return changed(add)


def test_golden_cases_too_large_to_be_held_in_memory_are_refused() -> None:
    """All their bodies together count; the model's other files may have any size."""
    half = manifest.MAX_BODIES // 2
    assert manifest.parse_model_manifest(with_bodies(half, half), on="m").golden
    assert "golden cases have more than" in refused(with_bodies(half, half + 1)).detail
    assert manifest.parse_model_manifest(
        changed(lambda values: values["files"][-1].update(size=1 << 40)), on="m"
    ).golden


@pytest.mark.parametrize(
    ("missing", "change"),
    [
        ("model.onnx", lambda values: values["files"].pop(2)),
        ("labels.txt", lambda values: values["files"].pop(1)),
        ("golden/one.json", lambda values: values["files"].pop(0)),
    ],
)
def test_a_file_that_is_spoken_of_must_be_listed(
    missing: str, change: Callable[[Any], object]
) -> None:
    """Weights, labels and golden requests come with the model."""
    assert f"{missing!r} is used but is not one of the files" in refused(changed(change)).detail


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
def test_a_place_expects_exactly_one_thing(fields: dict[str, Any]) -> None:
    """A place of the answer equals a value or is near a number; nothing, both, or a shapeless promise is refused."""
    assert "golden.0.expect.json.0" in refused(expecting(**fields)).detail


@pytest.mark.parametrize("value", ["x", "", 1, 1.0, True, False, None])
def test_an_expected_value_keeps_its_type(value: object) -> None:
    """True is not 1, 1 is not 1.0, and null can be promised."""
    found = (
        manifest.parse_model_manifest(expecting(at="", equals=value), on="x")
        .golden[0]
        .expect.json_[0]
    )
    assert (found.equals, type(found.equals), found.near) == (value, type(value), None)


def test_golden_requests_come_first_in_the_layer() -> None:
    """The proof can be read without the weights, whatever the names are."""
    data = changed(
        lambda values: values["files"].insert(
            0, {"path": "a-large-one.bin", "sha256": SHA, "size": 1}
        )
    )
    assert [
        file.path for file in manifest.parse_model_manifest(data, on="x").files_in_layer_order
    ] == [
        "golden/one.json",
        "a-large-one.bin",
        "labels.txt",
        "model.onnx",
    ]


def test_an_authors_description_is_read() -> None:
    """The digits model of these tests is described as the documentation says."""
    found = manifest.parse_description((DIGITS / "model.toml").read_bytes(), on="x")
    assert (found.name, found.version, [case.name for case in found.golden]) == (
        "digits",
        "1",
        ["three", "seven"],
    )


def test_minus_one_stands_for_a_free_dimension() -> None:
    """TOML has no null; only in shapes does -1 mean one."""
    interface = manifest.parse_description(TOML.encode(), on="x").interface.model_dump()
    assert interface["input"] == {"shape": [None, 8, 8]}
    assert interface["output"] == {"shape": [None, 10]}
    assert interface["preprocessing"] == {"mean": [-1]}


def test_an_interface_may_be_arranged_in_any_way() -> None:
    """A model with several inputs and no labels is described as its application likes to read it."""
    other = TOML.replace(
        "input = { shape = [-1, 8, 8] }",
        'inputs = [{ name = "a", shape = [-1] }, { name = "b", shape = [-1, 2] }]',
    )
    interface = manifest.parse_description(
        other.replace('labels = "labels.txt"', "").encode(), on="x"
    ).interface
    assert interface.labels is None
    assert interface.model_dump()["inputs"] == [
        {"name": "a", "shape": [None]},
        {"name": "b", "shape": [None, 2]},
    ]


def test_what_the_author_left_out_has_defaults() -> None:
    """A golden case needs a path and no more."""
    case = manifest.parse_description(
        TOML.replace("expect = { status = 204 }", "expect = {}").encode(), on="x"
    ).golden[0]
    assert (case.request.method, case.request.body, case.expect.status, case.expect.within_ms) == (
        "GET",
        None,
        200,
        5000.0,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('format = "onnx"', 'format = "pickle"'),
        ('version = "1"', 'version = "latest"'),
        ('version = "1"', "version = 1"),
        ("[interface]", "[interfaces]"),
        ('name = "digits"', 'name = "digits"\nschema = 1'),
        ('model = "model.onnx"', "model = 3"),
        ('name = "digits"', 'name = "digits"\nfiles = []'),
    ],
)
def test_an_authors_description_that_breaks_the_format_is_refused(old: str, new: str) -> None:
    """The rules are the same before publishing as after."""
    assert old in TOML
    with pytest.raises(ManifestInvalid):
        manifest.parse_description(TOML.replace(old, new).encode(), on="model.toml")


@pytest.mark.parametrize(
    "bad",
    [
        b"name: digits",
        b"\xff",
        b"a = " + b"[" * 100_000,
        b"a = " + b"1" * 5000,
        b"x" * (manifest.MAX_BYTES + 1),
    ],
)
def test_what_is_no_toml_is_refused(bad: bytes) -> None:
    """Another format, another encoding, no end of brackets, or of digits: each is an error that names the file."""
    with pytest.raises(ManifestInvalid) as caught:
        manifest.parse_description(bad, on="model.toml")
    assert caught.value.on == "model.toml"


def test_a_published_form_is_made_of_the_authors() -> None:
    """What was left out stays out, dates become text, and the published form reads back as the same model."""
    author = manifest.parse_description(
        (TOML + "[metadata]\ntrained = 2026-01-02\n").encode(), on="x"
    )
    files = [{"path": name, "size": 1, "sha256": SHA} for name in ("labels.txt", "model.onnx")]
    made = ModelManifest.model_validate(
        {**author.model_dump(by_alias=True, exclude_unset=True), "schema": 1, "files": files}
    )
    assert json.loads(made.text)["metadata"] == {"trained": "2026-01-02"}
    assert json.loads(made.text)["golden"] == [
        {"name": "one", "request": {"path": "/healthz"}, "expect": {"status": 204}}
    ]
    assert manifest.parse_model_manifest(made.text, on="x").model == made.model
