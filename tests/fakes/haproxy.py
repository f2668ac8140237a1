"""HAProxy in memory: its configuration, its admin socket and its health checks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

_FALL = 3
_COLUMNS = ("pxname", "svname", "qcur", "scur", "status", "check_status", "check_code")


@dataclass
class Server:
    """A server of the proxy.

    Attributes:
        address: its address.
        state: its administrative state.
        health: the count of HAProxy: 0 is down, `fall` is up, and others are shown as a fraction.
        checked: the result of the last check.
    """

    address: str
    state: str
    health: int = 1
    checked: str = "INI"

    @property
    def status(self) -> str:
        """The value of the column `status`."""
        if self.state == "maint":
            return "MAINT"
        if self.health == 0:
            return "DOWN"
        word = "DRAIN" if self.state == "drain" else "UP"
        return word if self.health == _FALL else f"{word} {self.health}/{_FALL}"


@dataclass
class Proxy:
    """A running proxy.

    Args:
        text: its configuration.
        probe: returns the health at an address: True, False, or None without a response.
        busy: requests in flight, by address.
        ends: how many of them end at every address between two looks.
        blind: the servers that got requests before a check of theirs had passed.
        asked: the commands that its admin socket has received.
    """

    text: str
    probe: Callable[[str], bool | None]
    busy: dict[str, int] = field(default_factory=dict)
    ends: int = 0
    blind: list[str] = field(default_factory=list)
    servers: dict[str, Server] = field(init=False)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reload(self.text)

    def reload(self, text: str) -> None:
        """Load a configuration; its servers have the states in it and no check result."""
        if not usable(text):
            return
        self.text = text
        found = re.findall(r"^ +server (\S+) ([\d.]+):\d+( disabled)?$", text, re.MULTILINE)
        self.servers = {
            name: Server(address, "maint" if disabled else "ready")
            for name, address, disabled in found
        }

    def said(self, command: str) -> str:
        """Return the response to a command, or to several after each other, on the admin socket."""
        return "".join(map(self._respond, command.split("; ")))

    def _respond(self, command: str) -> str:
        self.asked.append(command)
        words = command.split()
        if words[:2] == ["show", "info"]:
            mark = re.search(r"^ +description (\S+)$", self.text, re.MULTILINE)
            return f"Name: HAProxy\ndescription: {mark[1] if mark else ''}\n"
        if words[:2] == ["show", "stat"]:
            shown = self._table()
            self.busy = {address: max(0, count - self.ends) for address, count in self.busy.items()}
            self.check()
            return shown
        if words[:2] == ["set", "server"] and words[3] == "state":
            return self._set(words[2].removeprefix("replicas/"), words[4])
        return "Unknown command.\n"

    def _set(self, name: str, state: str) -> str:
        server = self.servers.get(name)
        if server is None:
            return "No such server.\n\n"
        if server.state == "maint" != state:
            # The last result stays to be seen until the next check is through.
            server.health = 1
        server.state = state
        if state == "ready" and server.health < _FALL:
            self.blind.append(name)
        return "\n"

    def check(self) -> None:
        """Check the health of every server that is not in maintenance once."""
        for server in self.servers.values():
            if server.state == "maint":
                continue
            answer = self.probe(server.address)
            server.checked = {True: "L7OK", False: "L7STS", None: "L4CON"}[answer]
            server.health = _FALL if answer else max(0, server.health - 1)

    def open_to(self) -> list[str]:
        """Return the addresses that get requests now."""
        return [
            server.address
            for server in self.servers.values()
            if server.state == "ready" and server.health
        ]

    def _table(self) -> str:
        rows = [
            ("door", "FRONTEND", "", "0", "OPEN", "", ""),
            *map(self._row, self.servers),
            ("replicas", "BACKEND", "0", "0", "UP", "", ""),
        ]
        return "\n".join(["# " + ",".join(_COLUMNS), *(",".join(row) for row in rows), ""])

    def _row(self, name: str) -> tuple[str, ...]:
        server = self.servers[name]
        checked = "" if server.state == "maint" else server.checked
        return (
            "replicas",
            name,
            "0",
            str(self.busy.get(server.address, 0)),
            server.status,
            checked,
            {"L7OK": "200", "L7STS": "503"}.get(checked, ""),
        )


def usable(text: str) -> bool:
    """Return whether the proxy would start with a configuration."""
    return all(
        f"\n{section}" in f"\n{text}" for section in ("global", "frontend door", "backend replicas")
    )
