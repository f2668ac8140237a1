"""Commands to the running HAProxy of a Docker host, and what it says of its slots.

Each slot is a fixed address on the environment's own network. A rollout instructs the running
proxy which slots get requests, and asks it when a slot's last request is done, so that replicas
are replaced without a reload.

Source: HAProxy 3.0 Management Guide, "Unix Socket commands".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from deploy.clients.docker.protocol import Engine
from deploy.clock import REAL, Clock
from deploy.errors import EngineFailed
from deploy.targets.docker.haproxy import CONFIG, SOCKET, STATE_FOLDER, read_mark

_WITHIN = 15.0
_POLL = 0.05
_NEXT = "`docker logs` of that container shows why"
_DESCRIPTION = re.compile(r"^description: *(.*?)\r?$", re.MULTILINE)

_Response = TypeVar("_Response")

Admission = Literal["ready", "drain", "maint"]


@dataclass(frozen=True)
class Slot:
    """What the proxy says of a slot.

    Attributes:
        number: the slot.
        admitted: whether it gets new requests.
        checked: whether the proxy checks its health.
        healthy: whether the last check of the replica in it passed.
        in_flight: the requests that its replica works on, or that wait for it.
        status: the HTTP status of the last check's response; 0 if there was none.
    """

    number: int
    admitted: bool
    checked: bool
    healthy: bool
    in_flight: int
    status: int = 0


@dataclass(frozen=True)
class ProxyState:
    """What a proxy says of itself at one moment.

    Attributes:
        slots: the state of every slot, by its number.
        mark: the mark of the configuration with which it runs.
    """

    slots: dict[int, Slot]
    mark: str

    def has(self, text: str) -> bool:
        """Return whether it runs with this configuration, whichever slots that admits."""
        return self.mark == read_mark(text)


class Proxy:
    """The running proxy in a container.

    A proxy that gives no response can be about to start again, so each command is repeated for a
    while before it raises EngineFailed.

    Args:
        engine: runs the container.
        container: its id or name.
        clock: measures time and lets it pass.
    """

    def __init__(self, engine: Engine, container: str, clock: Clock = REAL) -> None:
        self._engine = engine
        self._clock = clock
        self.container = container

    def read(self) -> ProxyState:
        """Return its state."""
        return self._retry(self._read, "respond")

    def configure(self, text: str) -> None:
        """Make it run with this configuration, without closing a connection.

        Raises:
            EngineFailed: the proxy does not load it; it keeps the one that it has, also when it
                is restarted.
        """
        path = f"{STATE_FOLDER}/{CONFIG}"
        previous = (self._engine.files(self.container, STATE_FOLDER) or {}).get(CONFIG, b"")
        self._engine.put_file(self.container, path, text.encode())
        self._engine.signal(self.container, "SIGUSR2")
        try:
            self._retry(
                lambda: self._has(text) or None,
                "load its new configuration",
            )
        except EngineFailed as error:
            self._engine.put_file(self.container, path, previous)
            raise EngineFailed(
                error.what,
                on=error.on,
                next="`invoke down`, then `invoke release`: the proxy is created again",
                detail=error.detail,
            ) from error

    def wait(self) -> None:
        """Wait until it responds."""
        self._retry(self._read, "start")

    def slots(self) -> dict[int, Slot]:
        """Return the state of every slot, by its number."""
        return self.read().slots

    def admit(self, slot: int, admission: Admission) -> None:
        """Set whether a slot gets requests.

        Args:
            slot: its number.
            admission: `ready`: new requests; `drain`: no new requests, but health checks;
                `maint`: neither.

        Raises:
            EngineFailed: the proxy refuses, for example because it has no such slot.
        """
        refusal = self._retry(
            lambda: self._execute(f"set server replicas/slot-{slot} state {admission}"), "respond"
        ).strip()
        if refusal:
            raise EngineFailed(
                f"the proxy refused to set slot {slot} to {admission}",
                on=self.container,
                next=_NEXT,
                detail=f"  {refusal}",
            )

    def _has(self, text: str) -> bool:
        state = self._read()
        return state is not None and state.has(text)

    def _read(self) -> ProxyState | None:
        """Return its state, or None if the response is not whole."""
        # One command for both, as a command takes an engine much longer than the proxy.
        info, _, table = self._execute("show info; show stat").partition("# pxname")
        mark = _DESCRIPTION.search(info)
        rows = [
            row
            for row in csv.DictReader(f"pxname{table}".splitlines())
            if row["pxname"] == "replicas"
        ]
        # A busy engine can cut a response short; the sum over all slots comes after them.
        whole = any(row["svname"] == "BACKEND" for row in rows)
        if mark is None or not whole:
            return None
        slots = {slot.number: slot for row in rows if (slot := _parse_slot(row))}
        return ProxyState(slots, mark[1])

    def _execute(self, command: str) -> str:
        """Return the response to a command; commands consist of this module's words and numbers."""
        code, output = self._engine.execute(
            self.container, ("sh", "-c", f"echo '{command}' | socat -t 5 - UNIX-CONNECT:{SOCKET}")
        )
        if code != 0:
            raise EngineFailed(
                "the proxy did not respond",
                on=self.container,
                next=_NEXT,
                detail=f"  {output.strip()}",
            )
        return output

    def _retry(self, ask: Callable[[], _Response | None], what: str) -> _Response:
        """Return the first response that is not None."""
        deadline = self._clock.now() + _WITHIN
        while True:
            with suppress(EngineFailed):
                response = ask()
                if response is not None:
                    return response
            if self._clock.now() > deadline:
                raise EngineFailed(
                    f"the proxy did not {what}",
                    on=self.container,
                    next=_NEXT,
                    detail=self._engine.logs(self.container, 10),
                )
            self._clock.sleep(_POLL)


def _parse_slot(row: dict[str, str]) -> Slot | None:
    kind, _, number = row["svname"].partition("-")
    if kind != "slot":
        return None
    # A slot that is used again shows the last check of the replica before, and counts ("DRAIN
    # 1/3"), until the replica in it has been checked.
    counted = row["status"] not in ("UP", "DRAIN")
    status = row["status"].split()[0]
    passed = row["check_status"].lstrip("* ").startswith(("L7OK", "L6OK", "L4OK"))
    return Slot(
        number=int(number),
        admitted=status not in ("DRAIN", "MAINT"),
        checked=status != "MAINT",
        healthy=passed and not counted,
        in_flight=int(row["scur"] or 0) + int(row["qcur"] or 0),
        status=int(row["check_code"] or 0),
    )
