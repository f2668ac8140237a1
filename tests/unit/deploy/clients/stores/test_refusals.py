"""What services of objects say when they refuse a request."""

from __future__ import annotations

import pytest

from deploy.clients.stores.refusals import explain, is_taken, is_undecided


@pytest.mark.parametrize(
    ("code", "taken", "undecided"),
    [
        ("BlobAlreadyExists", True, False),
        ("PreconditionFailed", True, False),
        ("ConditionalRequestConflict", False, True),
        ("ContainerBeingDeleted", False, False),
    ],
)
def test_conflicts_are_told_apart(code: str, taken: bool, undecided: bool) -> None:
    """The library has one class for all of them."""
    error = OSError(f"409 Conflict: <Error><Code>{code}</Code></Error>")
    assert is_taken(error) is taken
    assert is_undecided(error) is undecided


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("UnknownIssuer", "REQUESTS_CA_BUNDLE"),
        ("Expired", "clock"),
        ("NotValidForNameContext {\n  expected: x", "address"),
    ],
)
def test_certificates_that_are_not_trusted(reason: str, advice: str) -> None:
    """The library has the reason in its debug output alone."""
    found = explain(OSError(f"error sending request\n InvalidCertificate(\n      {reason},\n)"))
    assert found is not None
    assert "certificate" in found.what
    assert advice in found.next


def test_other_failures_are_not_explained() -> None:
    """A connection that breaks, for example."""
    assert explain(OSError("error sending request")) is None
