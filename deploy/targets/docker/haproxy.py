"""HAProxy's configuration on a Docker host: a text that depends on the settings alone."""

from __future__ import annotations

import hashlib
import ipaddress
import re

CONFIG = "haproxy.cfg"
PORT = 8080
STATE_FOLDER = "/state"
COMMAND = ("haproxy", "-W", "-db", "-f", f"{STATE_FOLDER}/{CONFIG}")
SOCKET = "/tmp/admin.sock"  # noqa: S108 - a path in the container
_BUFFER = 65536
# What a buffer holds of a body, beside its head and the room for changing that.
_WHOLE = 60_000
_FIRST = 10
_ADDRESS = 5


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
    stats socket {SOCKET} mode 600 level admin
    hard-stop-after {patience}
    description {compute_mark(body)}

{body}"""


def read_admitted(text: str) -> frozenset[int] | None:
    """The slots that a configuration opens when the door starts, or None if it is not one, whole and unchanged."""
    head, _, body = text.partition("\n\n")
    if f"description {compute_mark(body)}" not in head:
        return None
    return frozenset(
        int(number) for number in re.findall(r"^ +server slot-(\d+) \S+$", body, re.MULTILINE)
    )


def compute_mark(body: str) -> str:
    """A word by which a running proxy tells which configuration it has, whichever slots it opens."""
    return hashlib.sha256(body.replace(" disabled", "").encode()).hexdigest()[:16]


def mark_of(text: str) -> str:
    """Return the mark that a configuration carries."""
    return next(
        line.split()[1] for line in text.splitlines() if line.strip().startswith("description")
    )
