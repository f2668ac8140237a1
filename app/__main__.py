"""The process of one replica: `python -m app` reads the settings, loads the model and serves it.

Exit codes: 0 after a stop, 1 for settings that are wrong, 3 for a model that cannot be served.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_BAD_SETTINGS = 1
EXIT_BAD_MODEL = 3


def listen(port: int) -> socket.socket:
    """Return a socket that listens on all addresses of this machine."""
    listener = socket.create_server(("0.0.0.0", port))  # noqa: S104 - those of a container
    # Connections inherit both options. One whose client has vanished is found dead and closed.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The body of a response must not wait until the client has acknowledged its head. The event
    # loop sets this option itself only for a socket that was made with the protocol's number.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def main(listen: Callable[[int], socket.socket] = listen) -> None:
    """Serve until SIGTERM; a bad setting or model is one line on stderr.

    Args:
        listen: Opens the socket for a port.
    """
    # The first process of a container ignores a signal for which it has no handler. It needs one
    # before the libraries are imported, which takes a second.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.basicConfig(format="[%(levelname)s] %(name)s: %(message)s", level=logging.WARNING)
    from app import application, server
    from app.bundle import ModelError
    from app.settings import Settings, SettingsError

    try:
        service = application.load(Settings.from_environment(os.environ))
    except SettingsError as error:
        _fail(EXIT_BAD_SETTINGS, f"settings: {error}")
    except ModelError as error:
        _fail(EXIT_BAD_MODEL, f"bad model: {error}")
    server.serve(service, listen(service.settings.port))


def _fail(code: int, reason: str) -> NoReturn:
    sys.stderr.write(f"app: {reason}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
