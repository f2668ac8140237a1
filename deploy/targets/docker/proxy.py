"""The front door of a Docker host: HAProxy in a container, with fixed slots behind which replicas come and go.

Each slot is a fixed address on a network of the environment's own. A rollout tells the running proxy which slots take
requests and asks it when a slot's last request is done, so that it is never reloaded. The slots of the release that was
settled last are written to its file, so that a door that is restarted opens those.
Source: HAProxy 3.0 Management Guide, "Unix Socket commands".
"""

from __future__ import annotations

import csv
import hashlib
import ipaddress
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from deploy.clients.docker.protocol import Engine
from deploy.errors import EngineFailed

CONFIG = "haproxy.cfg"
PORT = 8080
STATE_FOLDER = "/state"
COMMAND = ("haproxy", "-W", "-db", "-f", f"{STATE_FOLDER}/{CONFIG}")
_SOCKET = "/tmp/admin.sock"  # noqa: S108 - a path in the container
_BUFFER = 65536
# What a buffer holds of a body, beside its head and the room for changing that.
_WHOLE = 60_000
_FIRST = 10
_ADDRESS = 5
_WITHIN = 15.0
_POLL = 0.05
_LOOK = "`docker logs` of that container shows why"

_Answer = TypeVar("_Answer")

Admission = Literal["ready", "drain", "maint"]


@dataclass(frozen=True)
class Slot:
    """What the proxy says of a slot: whether requests are let in, whether its health is asked for, and found, and requests under way."""

    number: int
    admitted: bool
    checked: bool
    healthy: bool
    in_flight: int


def slot_address(subnet: str, slot: int | None) -> str:
    """The fixed address of a slot, or of the door itself."""
    network = ipaddress.ip_network(subnet)
    return str(network[_FIRST + slot if slot is not None else _ADDRESS])


def render_configuration(
    subnet: str,
    slots: int,
    *,
    port: int,
    ready: str,
    in_flight: int,
    answer_within: float,
    admitted: frozenset[int] = frozenset(),
) -> str:
    """The proxy's configuration: a pure function of what the environment's settings say.

    Args:
        subnet: of the environment's network.
        slots: how many replicas can be behind the door at once.
        port: where replicas listen.
        ready: the path of their health check.
        in_flight: how many requests a replica is given at once; more wait at the door.
        answer_within: for how many seconds a replica may say nothing before its request is given up.
        admitted: the slots that take requests when the door starts.
    """
    patience = f"{round(answer_within * 1000)}ms"
    servers = "\n".join(
        f"    server slot-{slot} {slot_address(subnet, slot)}:{port}{'' if slot in admitted else ' disabled'}"
        for slot in range(1, slots + 1)
    )
    body = f"""\
defaults
    mode http
    timeout connect 2s
    timeout client {patience}
    timeout server {patience}
    timeout queue 30s
    timeout check 5s
    timeout http-request 30s
    timeout http-keep-alive 60s
    # A connection to a replica serves one request: none can be closed by a replica just as it is used again.
    option http-server-close
    option redispatch 1
    option splice-auto
    retries 4
    default-server check inter 1s fastinter 100ms downinter 200ms rise 1 fall 3 maxconn {in_flight}

frontend door
    bind :{PORT}
    option forwardfor
    # A request goes on when it is whole or fills a buffer, and whole ones go first: who sends slowly keeps neither replicas nor others
    # waiting.
    option http-buffer-request
    http-request set-priority-class int(1) if {{ req.body_size gt {_WHOLE} }} or {{ req.hdr(transfer-encoding) -m found }}
    # One that was answered before it had sent everything, and sends nothing more, would keep its place at the replica.
    http-response set-timeout client 1s if {{ status ge 400 }}
    default_backend replicas

backend replicas
    balance leastconn
    option httpchk
    # With a host, as any client would ask: some applications refuse a request without one.
    http-check send meth GET uri {ready} ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
{servers}
"""
    return f"""\
global
    fd-hard-limit 20000
    tune.bufsize {_BUFFER}
    stats socket {_SOCKET} mode 600 level admin
    hard-stop-after {patience}
    description {_mark(body)}

{body}"""


def read_admitted(text: str) -> frozenset[int] | None:
    """The slots that a configuration opens when the door starts, or None if it is not one, whole and unchanged."""
    head, _, body = text.partition("\n\n")
    if f"description {_mark(body)}" not in head:
        return None
    return frozenset(
        int(number) for number in re.findall(r"^ +server slot-(\d+) \S+$", body, re.MULTILINE)
    )


def _mark(body: str) -> str:
    """A word by which a running proxy tells which configuration it has, whichever slots it opens."""
    return hashlib.sha256(body.replace(" disabled", "").encode()).hexdigest()[:16]


def _marked(text: str) -> str:
    return next(
        line.split()[1] for line in text.splitlines() if line.strip().startswith("description")
    )


class Proxy:
    """The running proxy in a container.

    Args:
        engine: runs it.
        container: its id or name.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self.container = container

    def has(self, text: str) -> bool:
        """Whether the running proxy works by this configuration, whichever slots it opens.

        Raises:
            EngineFailed: it does not answer, nor does it while it could be starting again; likewise below.
        """
        return self._patiently(self._mark, "answer") == _marked(text)

    def configure(self, text: str) -> None:
        """Makes the running proxy work by this configuration, without closing a connection.

        Raises:
            EngineFailed: the proxy does not take it; it goes on with the one that it has, also when it is restarted.
        """
        path = f"{STATE_FOLDER}/{CONFIG}"
        before = (self._engine.files(self.container, STATE_FOLDER) or {}).get(CONFIG, b"")
        self._engine.put_file(self.container, path, text.encode())
        self._engine.signal(self.container, "SIGUSR2")
        try:
            self._patiently(
                lambda: self._mark() == _marked(text) or None, "take its new configuration"
            )
        except EngineFailed as error:
            self._engine.put_file(self.container, path, before)
            raise EngineFailed(
                error.what,
                on=error.on,
                next="`invoke down`, then `invoke release`: it is made anew",
                detail=error.detail,
            ) from error

    def wait(self) -> None:
        """Returns when the proxy answers.

        Raises:
            EngineFailed: it does not.
        """
        self._patiently(self._mark, "start")

    def slots(self) -> dict[int, Slot]:
        """Every slot as the proxy sees it now.

        Raises:
            EngineFailed: the proxy does not tell of all of them.
        """
        return self._patiently(self._told, "tell of all its slots")

    def admit(self, slot: int, admission: Admission) -> None:
        """Lets requests into a slot, or keeps new ones out (`drain`), or stops asking for its health as well (`maint`).

        Raises:
            EngineFailed: the proxy does not do it.
        """
        said = self._patiently(
            lambda: self._said(f"set server replicas/slot-{slot} state {admission}"), "answer"
        ).strip()
        if said:
            raise EngineFailed(
                f"the proxy refused to set slot {slot} to {admission}",
                on=self.container,
                next=_LOOK,
                detail=f"  {said}",
            )

    def _told(self) -> dict[int, Slot] | None:
        """The slots that the proxy tells of, if its answer is whole."""
        told = csv.DictReader(self._said("show stat").lstrip("# ").splitlines())
        rows = [row for row in told if row.get("pxname") == "replicas"]
        # A busy engine may cut an answer short; the sum over all slots comes after them.
        whole = any(row["svname"] == "BACKEND" for row in rows)
        return {slot.number: slot for row in rows if (slot := _slot(row))} if whole else None

    def _mark(self) -> str | None:
        """The word for the configuration that the proxy has, if its answer came so far."""
        said = self._said("show info")
        return next(
            (
                line.partition(":")[2].strip()
                for line in said.splitlines()
                if line.startswith("description:")
            ),
            None,
        )

    def _said(self, command: str) -> str:
        """The answer to a command; commands are made of this module's own words and numbers."""
        code, output = self._engine.execute(
            self.container, ("sh", "-c", f"echo '{command}' | socat -t 5 - UNIX-CONNECT:{_SOCKET}")
        )
        if code != 0:
            raise EngineFailed(
                "the proxy did not answer",
                on=self.container,
                next=_LOOK,
                detail=f"  {output.strip()}",
            )
        return output

    def _patiently(self, ask: Callable[[], _Answer | None], what: str) -> _Answer:
        """What is asked for, as soon as there is something; a proxy that does not answer may be about to start again."""
        deadline = time.monotonic() + _WITHIN
        while True:
            with suppress(EngineFailed):
                answer = ask()
                if answer is not None:
                    return answer
            if time.monotonic() > deadline:
                end = self._engine.logs(self.container, 10)
                raise EngineFailed(
                    f"the proxy did not {what}", on=self.container, next=_LOOK, detail=end
                )
            time.sleep(_POLL)


def _slot(row: dict[str, str]) -> Slot | None:
    kind, _, number = row["svname"].partition("-")
    if kind != "slot":
        return None
    # A slot that was opened again shows the result of its last tenant's check, and counts ("DRAIN 1/3") until it has one of its own.
    settled = row["status"] in ("UP", "DRAIN")
    return Slot(
        number=int(number),
        admitted=row["status"].split()[0] not in ("DRAIN", "MAINT"),
        checked=row["status"].split()[0] != "MAINT",
        healthy=settled and row["check_status"].lstrip("* ").startswith(("L7OK", "L6OK", "L4OK")),
        in_flight=int(row["scur"] or 0) + int(row["qcur"] or 0),
    )
