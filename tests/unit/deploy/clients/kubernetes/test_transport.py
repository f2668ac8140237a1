"""What is read from the answers of an API server."""

from __future__ import annotations

import pytest

from deploy.clients.kubernetes.transport import ApiResponse
from tests.fakes.transport import response_with, status


@pytest.mark.parametrize("text", ["", "404 page not found", "[1]", "null", '{"kind": ', "<html>"])
def test_a_body_that_is_no_object_holds_nothing(text: str) -> None:
    """It is an answer all the same."""
    answer = ApiResponse(404, text)
    assert (
        dict(answer.body),
        answer.reason,
        answer.message,
        dict(answer.details),
        answer.causes,
    ) == ({}, "", "", {}, [])
    assert (answer.lacks_namespace, answer.conflicts) == (False, {})


def test_only_what_was_done_is_good() -> None:
    """A redirect is not followed, and not good."""
    assert [
        code for code in (100, 200, 201, 202, 302, 400, 404, 500) if ApiResponse(code).is_success
    ] == [
        200,
        201,
        202,
    ]


def test_a_status_tells_codes_and_words() -> None:
    """Words come on one line, however many they had."""
    answer = status(
        422,
        "Invalid",
        "Deployment is invalid:\n  * one\n  * two",
        kind="Deployment",
        causes=[{"field": "spec"}, "odd"],
    )
    assert (answer.reason, answer.message) == ("Invalid", "Deployment is invalid: * one * two")
    assert answer.causes == [{"field": "spec"}]
    assert len(status(400, message="x" * 10_000).message) < 1000


def test_an_object_of_odd_form_does_not_stop_anything() -> None:
    """Somebody's proxy may have written it."""
    odd = response_with(details=["a"], causes=3, reason=None, message=None)
    assert (odd.reason, odd.message, dict(odd.details), odd.causes) == ("", "", {}, [])
    assert status(409, causes="x").causes == []


def test_a_missing_namespace_is_told_from_other_absences() -> None:
    """By the kind that was not found."""
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
            "message": 'conflict with "nobody"',
        },
    ]
    assert status(409, "Conflict", causes=causes).conflicts == {"spec.replicas": owner}
