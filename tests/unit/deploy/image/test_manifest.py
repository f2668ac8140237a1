"""Image manifests that a registry sends: other documents are refused."""

from __future__ import annotations

import json

import pytest

from deploy.errors import BlobCorrupt
from deploy.image.manifest import parse_config, parse_image_manifest

DESCRIPTOR = b'{"mediaType": "a", "digest": "sha256:%s", "size": 7}' % (b"0" * 64)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b"{}",
        b'{"config": {}, "layers": []}',
        b'{"config": null, "layers": null}',
        b'{"a":' + b"[" * 100_000,
        b'{"config": %s, "layers": [], "annotations": {"a": 1}}' % DESCRIPTOR,
        b'{"config": %s, "layers": [], "annotations": ["a"]}' % DESCRIPTOR,
        b'{"config": %s, "layers": [%s]}' % (DESCRIPTOR, DESCRIPTOR.replace(b"7", b"-7")),
    ],
)
def test_a_document_that_is_not_an_image_manifest_is_refused(text: bytes) -> None:
    """The error shows the start of the document."""
    with pytest.raises(BlobCorrupt) as caught:
        parse_image_manifest(text)
    assert repr(text[:60]) in caught.value.on


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"rootfs": {}}',
        b'{"rootfs": {"diff_ids": ["a"]}}',
        b'{"rootfs": {"diff_ids": []}, "history": [7]}',
        b'{"rootfs": {"diff_ids": []}, "history": [{"created_by": 7}]}',
        b'{"rootfs": {"diff_ids": []}, "config": []}',
        b'{"rootfs": {"diff_ids": []}, "config": {"Env": {"a": "b"}}}',
        b'{"rootfs": {"diff_ids": []}, "config": {"Labels": ["a"]}}',
        b'{"rootfs": {"diff_ids": []}, "config": {"Volumes": ["/a"]}}',
    ],
)
def test_a_document_that_is_not_a_config_is_refused(text: bytes) -> None:
    """A registry may send any bytes under the digest that its manifest names."""
    with pytest.raises(BlobCorrupt, match="config"):
        parse_config(text)


def test_a_config_keeps_what_a_join_does_not_read() -> None:
    """Engines write more than the specification has, and null for what is empty."""
    config = {
        "rootfs": {"diff_ids": [], "type": "layers"},
        "history": None,
        "config": {"Env": None},
    }
    assert parse_config(json.dumps(config).encode()) == config
