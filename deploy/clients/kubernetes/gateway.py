"""The API server as a gateway to a pod or a Service, by the `proxy` subresource of both.

The server reports its own failures as a Status; these are never taken for responses of the
application.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deploy.clients.http import NoResponse, Request, Response, SendOnce
from deploy.clients.kubernetes.errors import ResourceAttributes
from deploy.clients.kubernetes.retry import RetryingClient
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, Transport

_VERBS = {"GET": "get", "POST": "create", "PUT": "update"}


class ApiServerGateway:
    """The gateway to one pod or Service; requests are retried while the API server fails.

    Args:
        transport: the connection to the API server.
        client: the client of the API server, which retries.
        path: the path of the `proxy` subresource.
        resource: the same, as a Role names it.
        require_success: returns a response of success, and raises the ClusterError of another.
    """

    def __init__(
        self,
        transport: Transport,
        client: RetryingClient,
        path: str,
        resource: ResourceAttributes,
        require_success: Callable[[ApiResponse, ResourceAttributes], ApiResponse],
    ) -> None:
        self._transport = transport
        self._client = client
        self._path = path
        self._resource = resource
        self._require_success = require_success
        self._unreachable = False

    def forward(self, send: SendOnce, request: Request) -> Response:
        try:
            return self._forward_once(send, request)
        except NoResponse:
            if not request.retry_gateway:
                raise
        # Once the API server is known to answer, the application is to blame for the next silence.
        self._client.send(ApiRequest("GET", "/version"), "/version")
        return self._forward_once(send, request)

    def _forward_once(self, send: SendOnce, request: Request) -> Response:
        resource = replace(self._resource, verbs=(_VERBS[request.method],))
        responses: list[Response] = []

        def send_through(_request: ApiRequest, _timeout: tuple[float, float]) -> ApiResponse:
            responses.append(send(self._transport.endpoint(self._path), request))
            return _own_response(responses[-1])

        # One wait for a replica that cannot be reached is enough: later requests do not wait again.
        retry = request.retry_gateway and not self._unreachable
        outcome = self._client.send(
            ApiRequest(request.method, self._path),
            f"{resource.verbs} {resource.resource}",
            None if retry else 0.0,
            send_through,
        )
        # By 503 the server says that nothing answers there: a failure of the application.
        self._unreachable = outcome.status == 503
        if not (self._unreachable or (_is_failure(outcome.status) and not retry)):
            self._require_success(outcome, resource)
        return responses[-1]


def _is_failure(status: int) -> bool:
    return status == 429 or status >= 500


def _own_response(response: Response) -> ApiResponse:
    """Return the API server's own response; a success where the application answered."""
    if response.status in (401, 403) or _is_failure(response.status):
        own = ApiResponse(
            response.status, response.content.decode("utf-8", "replace"), response.retry_after
        )
        if (own.body.get("kind"), own.body.get("apiVersion")) == ("Status", "v1"):
            return own
    return ApiResponse(200)
