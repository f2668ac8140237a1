"""The fields of API server responses."""

from __future__ import annotations

import pytest

from deploy.clients.kubernetes.transport import ApiResponse
from tests.fakes.transport import response_with, status


@pytest.mark.parametrize("text", ["", "404 page not found", "[1]", "null", '{"kind": ', "<html>"])
def test_a_body_that_is_no_object_is_empty(text: str) -> None:
    """It is a response nevertheless."""
    response = ApiResponse(404, text)
    assert (
        dict(response.body),
        response.reason,
        response.message,
        dict(response.details),
        response.causes,
    ) == ({}, "", "", {}, [])
    assert (response.lacks_namespace, response.conflicts) == (False, {})


def test_only_a_status_below_300_is_success() -> None:
    """Redirects are not followed, and are no success."""
    assert [
        code for code in (100, 200, 201, 202, 302, 400, 404, 500) if ApiResponse(code).is_success
    ] == [
        200,
        201,
        202,
    ]


def test_a_status_has_reason_message_and_causes() -> None:
    """The message comes on one line, however many it had, and is cut."""
    response = status(
        422,
        "Invalid",
        "Deployment is invalid:\n  * one\n  * two",
        kind="Deployment",
        causes=[{"field": "spec"}, "odd"],
    )
    assert (response.reason, response.message) == ("Invalid", "Deployment is invalid: * one * two")
    assert response.causes == [{"field": "spec"}]
    assert len(status(400, message="x" * 10_000).message) < 1000


def test_an_object_of_the_wrong_form_raises_nothing() -> None:
    """A proxy may have written it."""
    odd = response_with(details=["a"], causes=3, reason=None, message=None)
    assert (odd.reason, odd.message, dict(odd.details), odd.causes) == ("", "", {}, [])
    assert status(409, causes="x").causes == []


def test_a_missing_namespace_differs_from_other_missing_objects() -> None:
    """The kind that was not found decides."""
    assert status(404, "NotFound", name="shop", kind="namespaces").lacks_namespace
    assert not status(404, "NotFound", name="one", kind="configmaps").lacks_namespace
    assert not status(403, "Forbidden", name="shop", kind="namespaces").lacks_namespace


@pytest.mark.parametrize(
    ("message", "owner"),
    [
        ('conflict with "autoscaler" using apps/v1', "autoscaler"),
        ('conflict with "kubectl-edit" using apps/v1 at 2026-01-01T12:00:00Z', "kubectl-edit"),
        ('conflict with "argo \\"cd\\"" using v1', 'argo \\"cd\\"'),
        ("", "another field manager"),
        ("conflict", "another field manager"),
    ],
)
def test_a_conflict_names_field_and_owner(message: str, owner: str) -> None:
    """Causes of other kinds are no conflicts."""
    causes = [
        {"reason": "FieldManagerConflict", "field": ".spec.replicas", "message": message},
        {
            "reason": "FieldValueInvalid",
            "field": ".spec.paused",
            "message": 'conflict with "none"',
        },
    ]
    assert status(409, "Conflict", causes=causes).conflicts == {"spec.replicas": owner}
