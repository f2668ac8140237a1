"""The API server as the way to a pod or a Service: what it says in its own name is never taken for the application's answer.

It leads requests there by the `proxy` part of both, and tells of its own failures in a Status, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deploy.clients.http import Endpoint, NoResponse, Request, Response
from deploy.clients.kubernetes.errors import ResourceAttributes
from deploy.clients.kubernetes.retry import RetryingClient
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, Transport

_VERBS = {"GET": "get", "POST": "create", "PUT": "update"}

Ask = Callable[[Endpoint, Request], Response]


class ApiServerGateway:
    """A way through an API server that is waited for while the server fails.

    Args:
        wire: the way to the API server.
        server: the API server.
        path: of what it leads to.
        subject: the same, as a Role names it.
        good: gives an answer back; raises the ClusterError of one that was not good.
    """

    def __init__(
        self,
        wire: Transport,
        server: RetryingClient,
        path: str,
        subject: ResourceAttributes,
        good: Callable[[ApiResponse, ResourceAttributes], ApiResponse],
    ) -> None:
        self._wire = wire
        self._server = server
        self._path = path
        self._subject = subject
        self._good = good
        self._unreachable = False

    def forward(self, ask: Ask, question: Request) -> Response:
        try:
            return self._led(ask, question)
        except NoResponse:
            if not question.retry_gateway:
                raise
        # Once the API server is known to answer, a second silence is the application's.
        self._server.send(ApiRequest("GET", "/version"), "/version")
        return self._led(ask, question)

    def _led(self, ask: Ask, question: Request) -> Response:
        subject = replace(self._subject, verbs=(_VERBS[question.method],))
        replies: list[Response] = []

        def send(_call: ApiRequest, _within: tuple[float, float]) -> ApiResponse:
            replies.append(ask(self._wire.endpoint(self._path), question))
            return _own(replies[-1])

        # What could not be reached for so long is not waited for again with every question.
        insist = question.retry_gateway and not self._unreachable
        call = ApiRequest(question.method, self._path)
        answer = self._server.send(
            call, f"{subject.verbs} {subject.resource}", None if insist else 0.0, send
        )
        # By 503 it says that nobody answers there, which in the end is the application's matter.
        self._unreachable = answer.status == 503
        if not (self._unreachable or (_fails(answer.status) and not insist)):
            self._good(answer, subject)
        return replies[-1]


def _fails(status: int) -> bool:
    return status == 429 or status >= 500


def _own(reply: Response) -> ApiResponse:
    """What the API server says in its own name; a good answer where the application spoke."""
    if reply.status in (401, 403) or _fails(reply.status):
        answer = ApiResponse(
            reply.status, reply.content.decode("utf-8", "replace"), reply.retry_after
        )
        if (answer.body.get("kind"), answer.body.get("apiVersion")) == ("Status", "v1"):
            return answer
    return ApiResponse(200)
