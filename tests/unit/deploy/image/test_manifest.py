"""Image manifests that a registry sends: other documents are refused."""

from __future__ import annotations

import pytest

from deploy.errors import BlobCorrupt
from deploy.image.manifest import parse_image_manifest


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
    ],
)
def test_what_is_no_manifest_is_told(text: bytes) -> None:
    """A registry, or something in its place, may answer anything; what it was is shown."""
    with pytest.raises(BlobCorrupt) as caught:
        parse_image_manifest(text)
    assert repr(text[:60]) in caught.value.on
