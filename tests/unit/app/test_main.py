"""The socket on which the server listens."""

from __future__ import annotations

import socket

from app.__main__ import listen


def test_a_connection_sends_each_part_of_a_response_at_once() -> None:
    """Connections inherit it; else a body waits until the client has acknowledged the head."""
    with listen(0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
