"""Descriptions by authors (model.toml): how they are parsed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.errors import ManifestInvalid
from deploy.model import manifest, reading
from deploy.model.manifest import ModelManifest

DIGITS = Path(__file__).parents[3] / "models" / "digits"
SHA = "0" * 64
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


def test_an_authors_description_is_read() -> None:
    """The digits model is described as the documentation says."""
    found = reading.parse_description((DIGITS / "model.toml").read_bytes(), on="x")
    assert (found.name, found.version, [case.name for case in found.golden]) == (
        "digits",
        "1",
        ["three", "seven"],
    )


def test_minus_one_stands_for_a_free_dimension() -> None:
    """TOML has no null; -1 stands for it in shapes only."""
    interface = reading.parse_description(TOML.encode(), on="x").interface.model_dump()
    assert interface["input"] == {"shape": [None, 8, 8]}
    assert interface["output"] == {"shape": [None, 10]}
    assert interface["preprocessing"] == {"mean": [-1]}


def test_an_interface_may_have_any_structure() -> None:
    """A model may have several inputs and no labels."""
    other = TOML.replace(
        "input = { shape = [-1, 8, 8] }",
        'inputs = [{ name = "a", shape = [-1] }, { name = "b", shape = [-1, 2] }]',
    )
    interface = reading.parse_description(
        other.replace('labels = "labels.txt"', "").encode(), on="x"
    ).interface
    assert interface.labels is None
    assert interface.model_dump()["inputs"] == [
        {"name": "a", "shape": [None]},
        {"name": "b", "shape": [None, 2]},
    ]


def test_keys_that_the_author_left_out_have_defaults() -> None:
    """A golden case needs a path only."""
    case = reading.parse_description(
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
    """The rules are the same for a description and for a published model manifest."""
    assert old in TOML
    with pytest.raises(ManifestInvalid):
        reading.parse_description(TOML.replace(old, new).encode(), on="model.toml")


@pytest.mark.parametrize(
    "bad",
    [
        b"name: digits",
        b"\xff",
        b"a = " + b"[" * 1_000_000,
        b"a = " + b"{a=" * 300_000,
        b"[metadata]\na" + b".a" * 500_000 + b" = 1",
        b"[metadata]\na" + b" . 'b c'" * 100_000 + b" = 1",
        b"[metadata" + b'."a"' * 200_000 + b"]",
        b"[metadata]\nx = {a" + b".a" * 500_000 + b" = 1}",
        b"a = " + b"1" * 5000,
        b"x" * (manifest.MAX_DESCRIPTION_BYTES + 1),
    ],
)
def test_a_description_that_is_not_toml_is_refused(bad: bytes) -> None:
    """The error names the file."""
    with pytest.raises(ManifestInvalid) as caught:
        reading.parse_description(bad, on="model.toml")
    assert caught.value.on == "model.toml"


def test_long_texts_are_read() -> None:
    """They need no more time than short ones."""
    text = f'{TOML}[metadata]\na = "{"x" * 900_000}"\nb = "{"1.2 " * 20_000}"\n'
    assert reading.parse_description(text.encode(), on="x").metadata["b"].startswith("1.2 ")


@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "-inf", "[" * 300 + "]" * 300, "{a=" * 300 + "1" + "}" * 300],
)
def test_values_that_cannot_be_published_are_refused(value: str) -> None:
    """JSON has no infinite numbers, and its readers do not nest without end."""
    for table in ("metadata", "interface.more"):
        with pytest.raises(ManifestInvalid) as caught:
            reading.parse_description(f"{TOML}[{table}]\na = {value}\n".encode(), on="model.toml")
        assert caught.value.on == "model.toml"


def test_a_number_needs_a_tolerance() -> None:
    """Another processor would miss it by a rounding error."""
    near = TOML.replace("status = 204", 'json = [{ at = "/a", near = 1.5 }]')
    with pytest.raises(ManifestInvalid) as caught:
        reading.parse_description(near.encode(), on="model.toml")
    assert "golden case one, /a: near needs a tolerance" in caught.value.detail
    exact = near.replace("near = 1.5", "near = 1.5, tolerance = 0")
    assert reading.parse_description(exact.encode(), on="model.toml").golden


def test_a_model_manifest_is_made_of_a_description() -> None:
    """Missing keys stay missing, dates become text, and the result is read as the same model."""
    author = reading.parse_description(
        (TOML + "[metadata]\ntrained = 2026-01-02\n").encode(), on="x"
    )
    files = [{"path": name, "size": 1, "sha256": SHA} for name in ("labels.txt", "model.onnx")]
    published = ModelManifest.model_validate(
        {**author.model_dump(by_alias=True, exclude_unset=True), "schema": 1, "files": files}
    )
    assert json.loads(published.text)["metadata"] == {"trained": "2026-01-02"}
    assert json.loads(published.text)["golden"] == [
        {"name": "one", "request": {"path": "/healthz"}, "expect": {"status": 204}}
    ]
    assert reading.parse_model_manifest(published.text, on="x").model == published.model


def test_the_error_of_a_description_suggests_to_fix_it() -> None:
    """An author can change a description, but no published version."""
    with pytest.raises(ManifestInvalid) as caught:
        reading.parse_description(
            TOML.replace('format = "onnx"', 'format = "pickle"').encode(), on="model.toml"
        )
    assert "fix them" in caught.value.next
