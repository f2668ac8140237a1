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
def test_a_document_that_is_not_an_image_manifest_is_refused(text: bytes) -> None:
    """The error shows the start of the document."""
    with pytest.raises(BlobCorrupt) as caught:
        parse_image_manifest(text)
    assert repr(text[:60]) in caught.value.on
