"""How gunicorn runs the application: one worker process of many threads; more capacity means more replicas."""

# ruff: noqa: N999 - the name under which gunicorn looks for it
from __future__ import annotations

import os
import resource
import signal
import sys

from app.settings import Settings, SettingsError

_MOST_CONNECTIONS = 4096
_OTHER_FILES = 64

try:
    _settings = Settings.from_environment(os.environ)
except SettingsError as error:
    sys.exit(f"app: settings: {error}")

# Each connection is an open file, and each thread may have one more: all that may be had are taken, and connections that are too many
# wait for others to end instead of failing.
_, _files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _files))
_for_connections = (
    _MOST_CONNECTIONS
    if _files == resource.RLIM_INFINITY
    else _files - _settings.threads - _OTHER_FILES
)

# Until gunicorn sets its own handlers, a first process of a container would ignore the signal.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

bind = f"0.0.0.0:{_settings.port}"
wsgi_app = "app:create_app()"
# The model is loaded and checked before anything listens or forks: a bad one ends the start, and a worker that died is back at once.
preload_app = True
workers = 1
worker_class = "app.worker.Worker"
threads = _settings.threads
worker_connections = max(1, min(_MOST_CONNECTIONS, _for_connections))
# Longer than the minute for which proxies keep a connection, so that it is the proxy that closes first.
keepalive = 75
graceful_timeout = _settings.drain_seconds + _settings.grace_seconds
timeout = 60
# The root file system may be read-only; the heartbeat file must never wait for a disk.
worker_tmp_dir = "/dev/shm"  # noqa: S108 - a tmpfs of the container's own
control_socket_disable = True
loglevel = "warning"
