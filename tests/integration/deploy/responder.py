"""A replica for tests: the proxy of the parts image, answering every request by itself."""

from __future__ import annotations

CONFIGURATION = """\
defaults
    mode http
    timeout client 10s
    timeout connect 1s
    timeout server 10s
    timeout tarpit {slow}
frontend replica
    bind :8080
    http-request tarpit deny_status 429 if {{ path /slow }}
    http-request return status {status} content-type text/plain string {name}
"""


def responder(name: str, status: int = 200, slow: str = "1s", after: str = "") -> tuple[str, ...]:
    """The command of a container that answers with a status and its name, and `/slow` after a while.

    Args:
        name: the body of its answers.
        status: their status, also that of its health check.
        slow: how long a request of `/slow` takes.
        after: a shell command to be run before it listens.
    """
    text = CONFIGURATION.format(name=name, status=status, slow=slow)
    return ("sh", "-c", f"{after or 'true'} && cat > /tmp/replica.cfg <<'END' && exec haproxy -db -f /tmp/replica.cfg\n{text}END\n")
