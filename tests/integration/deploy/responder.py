"""A replica for tests: the proxy of the services image, which answers every request itself."""

from __future__ import annotations

from deploy.clients.docker.client import DockerEngine
from tests.contracts.engine import pack_context
from tests.fakes.engine import Script

DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY replica.sh /replica.sh
ARG STOP
STOPSIGNAL ${STOP}
CMD ["sh", "/replica.sh"]
"""
CONFIGURATION = """\
defaults
    mode http
    timeout client 10s
    timeout connect 1s
    timeout server 10s
    timeout tarpit {slow}
frontend replica
    bind :8080
    http-request reject if {{ path /lost /lost-too }}
    http-request tarpit deny_status 429 if {{ path /slow }}
    http-request return status {status} content-type text/plain string {name}
"""


def responder(name: str, status: int = 200, slow: str = "8s", after: str = "") -> tuple[str, ...]:
    """Return the command of a container that answers with a status and its name.

    The path `/slow` answers after a while, and `/lost` and `/lost-too` end the connection.

    Args:
        name: the body of its responses.
        status: their status, also that of its health check.
        slow: how long a request of `/slow` takes.
        after: a shell command that runs before it listens.
    """
    text = CONFIGURATION.format(name=name, status=status, slow=slow)
    write = f"cat > /tmp/replica.cfg <<'END' && exec haproxy -db -f /tmp/replica.cfg\n{text}END\n"
    return ("sh", "-c", f"{after or 'true'} && {write}")


def build_replica(
    engine: DockerEngine,
    parts: str,
    tag: str,
    code: str,
    script: Script,
    check: float,
    stop: str = "SIGUSR1",
) -> str:
    """Build the image of a replica that behaves like a script; return the digest of its config.

    Args:
        engine: builds the image.
        parts: the image of the proxy.
        tag: the image's name.
        code: the body of its responses.
        script: how it behaves.
        check: seconds between two health checks.
        stop: the signal that stops it: SIGUSR1 lets it complete its requests, SIGKILL does not.
    """
    said = "".join(f"echo '{line}'\n" for line in script.says.splitlines())
    status = 503 if script.ready_after is None else 200
    runs = responder(code, status, after=f"sleep {check * (script.ready_after or 0)}")[2]
    # Another test's removal of an image with the same files would take those of this build along.
    files = {
        "Dockerfile": DOCKERFILE,
        "replica.sh": f"# {tag}\n"
        + said
        + (runs if script.exits is None else f"exit {script.exits}\n"),
    }
    return engine.build(
        pack_context(files),
        dockerfile="Dockerfile",
        args={"BASE": parts, "STOP": stop},
        tag=tag,
        on_line=lambda _: None,
    )
