"""The front door of a Docker host: HAProxy in a container, with fixed slots behind which replicas come and go.

Each slot is a fixed address on a network of the environment's own. A rollout tells the running proxy which slots take
requests and asks it when a slot's last request is done, so that it is never reloaded. The slots of the release that was
settled last are written to its file, so that a door that is restarted opens those.
Source: HAProxy 3.0 Management Guide, "Unix Socket commands".
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from deploy.clients.docker.protocol import Engine
from deploy.errors import EngineFailed
from deploy.targets.docker.haproxy import CONFIG, SOCKET, STATE_FOLDER, mark_of

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
        return self._patiently(self._mark, "answer") == mark_of(text)

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
                lambda: self._mark() == mark_of(text) or None, "take its new configuration"
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
            self.container, ("sh", "-c", f"echo '{command}' | socat -t 5 - UNIX-CONNECT:{SOCKET}")
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
