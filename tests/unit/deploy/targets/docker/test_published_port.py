"""The published port of a proxy: what a request to it shows."""

from __future__ import annotations

import pytest

from deploy.clients.http import Endpoint, NoResponse, Request, Response
from deploy.targets.docker.published_port import PublishedPort

ENDPOINT = Endpoint("http://127.0.0.1:8080")


def port(outcome: Response | NoResponse) -> PublishedPort:
    """Return a port whose every request has that outcome."""

    def send(endpoint: Endpoint, request: Request) -> Response:
        assert (endpoint, request.path, request.method) == (ENDPOINT, "/readyz", "GET")
        if isinstance(outcome, NoResponse):
            raise outcome
        return outcome

    return PublishedPort(ENDPOINT, "/readyz", send)


@pytest.mark.parametrize(
    ("outcome", "problem", "closed"),
    [
        (Response(200), "", False),
        (Response(404), "", False),
        (Response(503), "the endpoint responds with status 503", False),
        (
            NoResponse("ConnectionError", 0.0, refused=True),
            "the endpoint refuses connections",
            True,
        ),
        (NoResponse("ReadTimeout", 5.0), "the endpoint gives no response (ReadTimeout)", False),
    ],
)
def test_a_request_shows_whether_clients_are_served(
    outcome: Response | NoResponse, problem: str, closed: bool
) -> None:
    """A private path has a response too; only a refused connection shows that nothing listens."""
    assert (port(outcome).find_problem(), port(outcome).is_closed()) == (problem, closed)
