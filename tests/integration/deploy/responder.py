"""A replica for tests: the proxy of the parts image, answering every request by itself."""

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
    http-request tarpit deny_status 429 if {{ path /slow }}
    http-request return status {status} content-type text/plain string {name}
"""


def responder(name: str, status: int = 200, slow: str = "8s", after: str = "") -> tuple[str, ...]:
    """The command of a container that answers with a status and its name, and `/slow` after a while.

    Args:
        name: the body of its answers.
        status: their status, also that of its health check.
        slow: how long a request of `/slow` takes.
        after: a shell command to be run before it listens.
    """
    text = CONFIGURATION.format(name=name, status=status, slow=slow)
    return (
        "sh",
        "-c",
        f"{after or 'true'} && cat > /tmp/replica.cfg <<'END' && exec haproxy -db -f /tmp/replica.cfg\n{text}END\n",
    )


def built(
    engine: DockerEngine,
    parts: str,
    tag: str,
    code: str,
    script: Script,
    check: float,
    stop: str = "SIGUSR1",
) -> str:
    """Builds the image of a replica that answers with its code and behaves like a script; returns the digest of its configuration.

    Args:
        engine: builds.
        parts: the image of the proxy.
        tag: the image's name.
        code: the body of its answers.
        script: how it behaves.
        check: seconds that pass between two health checks.
        stop: the signal that asks it to stop: by SIGUSR1 it finishes what it works on, by SIGKILL it drops that.
    """
    said = "".join(f"echo '{line}'\n" for line in script.says.splitlines())
    status = 503 if script.ready_after is None else 200
    runs = responder(code, status, after=f"sleep {check * (script.ready_after or 0)}")[2]
    files = {
        "Dockerfile": DOCKERFILE,
        "replica.sh": said + (runs if script.exits is None else f"exit {script.exits}\n"),
    }
    return engine.build(
        pack_context(files),
        dockerfile="Dockerfile",
        args={"BASE": parts, "STOP": stop},
        tag=tag,
        on_line=lambda _: None,
    )
