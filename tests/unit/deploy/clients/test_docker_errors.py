"""What the libraries below the engine's client raise never leaves it."""

from __future__ import annotations

import http.client

import docker.errors
import pytest
import requests
import urllib3.exceptions

from deploy.clients.docker_errors import asking
from deploy.errors import EngineFailed, EngineUnavailable, ModelUnknown


@pytest.mark.parametrize(
    "broken",
    [
        docker.errors.DockerException("gone"),
        requests.ConnectionError("gone"),
        urllib3.exceptions.ProtocolError("gone"),
        http.client.IncompleteRead(b""),
        ConnectionResetError("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_engine_that_ends_in_the_middle_of_an_answer_is_unavailable(broken: Exception) -> None:
    """Whichever library notices it first."""
    with pytest.raises(EngineUnavailable) as caught, asking("replica-1"):
        raise broken
    assert caught.value.on == "replica-1"


def test_a_refusal_of_the_engine_keeps_its_words() -> None:
    """What the engine says is shown."""
    with pytest.raises(EngineFailed, match="refused") as caught, asking("replica-1"):
        raise docker.errors.APIError("500 error", explanation="invalid mount")
    assert "invalid mount" in caught.value.detail


def test_errors_of_this_project_pass() -> None:
    """They were told already."""
    with pytest.raises(ModelUnknown), asking("replica-1"):
        raise ModelUnknown("none", on="store", next="publish it")
