"""Uvicorn as it runs the application: one process, one event loop, a stop that loses no request.

Clients that send or read slowly take no thread. A limit on their connections is left to the proxy.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn

from app import application
from app.service import Service

# Longer than the minute for which proxies keep a connection: the proxy closes first.
_KEEP_ALIVE_SECONDS = 75
# How long a stop waits for a request on each connection that is open, to answer it as the last one.
_LAST_REQUEST_SECONDS = 2.0
_POLL_SECONDS = 0.05


def serve(service: Service, listener: socket.socket) -> None:
    """Serve until SIGTERM, and return when the requests in flight are answered."""
    _allow_all_files()

    @asynccontextmanager
    async def until_stopped(_: object) -> AsyncIterator[None]:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        stopping = asyncio.create_task(_stop(stop, service, server))
        yield
        stopping.cancel()

    app = application.create_app(service, until_stopped)
    config = uvicorn.Config(
        app,
        # The parser in C is faster. This one is strict, and bounds the head of a request.
        http="h11",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=service.settings.grace_seconds,
    )
    server = uvicorn.Server(config)
    server.run([listener])


def _allow_all_files() -> None:
    """Raise the limit of open files as far as it goes: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _stop(asked: asyncio.Event, service: Service, server: uvicorn.Server) -> None:
    """Wait for the signal, be unready for as long as the settings say, and end the server."""
    await asked.wait()
    service.stopping = True
    await asyncio.sleep(service.settings.drain_seconds)
    # Responses now close their connections. An idle one may be about to carry a request.
    connections = server.server_state.connections
    await _wait_until(lambda: not connections)
    idle = set(connections)
    # The server closes a connection that was accepted a moment ago before its request arrives.
    for listener in server.servers:
        listener.close()
    await _wait_until(lambda: connections <= idle)
    server.should_exit = True


async def _wait_until(reached: Callable[[], bool]) -> None:
    """Wait until a condition holds, at most for as long as connections have for a last request."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LAST_REQUEST_SECONDS
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        if reached() or loop.time() > deadline:
            return
