"""The published port of a proxy on a Docker host, as a client sees it.

The engine forwards its connections by a process of its own, which can end while the container of
the proxy runs on. Neither the engine nor the proxy reports that: only a request shows it.
"""

from __future__ import annotations

from deploy.clients.http import Endpoint, NoResponse, Request, Response, SendOnce

_WITHIN = 5.0
# A connection is refused at once: one that takes longer was not.
_REFUSED_WITHIN = 1.0
_MAX_BYTES = 1024


class PublishedPort:
    """The port at which clients reach a proxy.

    Args:
        endpoint: its address.
        ready: the path at which the replicas say that they are ready.
        send: sends one request.
    """

    def __init__(self, endpoint: Endpoint, ready: str, send: SendOnce) -> None:
        self._endpoint = endpoint
        self._ready = ready
        self._send = send

    def is_closed(self) -> bool:
        """Return whether it refuses connections."""
        try:
            self._ask(_REFUSED_WITHIN)
        except NoResponse as error:
            return error.refused
        return False

    def find_problem(self) -> str:
        """Return why clients are not served there; empty if they are."""
        try:
            status = self._ask(_WITHIN).status
        except NoResponse as error:
            what = "refuses connections" if error.refused else f"gives no response ({error})"
            return f"the endpoint {what}"
        return f"the endpoint responds with status {status}" if status >= 500 else ""

    def _ask(self, timeout: float) -> Response:
        return self._send(self._endpoint, Request(self._ready, timeout, _MAX_BYTES))
