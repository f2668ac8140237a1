"""The configuration of HAProxy on a Docker host: a text that depends on settings alone.

The text carries a mark, a hash of itself, by which a running proxy says which configuration it
has. Any change of the text, also of a comment, has every running proxy reload once.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable

CONFIG = "haproxy.cfg"
PORT = 8080
STATE_FOLDER = "/state"
COMMAND = ("haproxy", "-W", "-db", "-f", f"{STATE_FOLDER}/{CONFIG}")
SOCKET = "/tmp/admin.sock"  # noqa: S108 - a path in the container
_BUFFER = 65536
# What a buffer holds of a body: the rest is for the head and for rewriting it.
_WHOLE = 60_000
# The places of the proxy, and of what would be slot 0, among the addresses of a network. The engine
# has the first address, and the last one is the broadcast address.
_PLACES = (5, 10)
_PLACES_OF_FEW = (2, 2)
_FEW = 32


def slot_address(subnet: str, slot: int | None) -> str:
    """Return the fixed address of a slot; of the proxy itself for None."""
    network = ipaddress.ip_network(subnet)
    proxy, before_slots = _find_places(network)
    return str(network[proxy if slot is None else before_slots + slot])


def count_slots(subnet: str) -> int:
    """Return for how many slots a network has addresses."""
    network = ipaddress.ip_network(subnet)
    _, before_slots = _find_places(network)
    return max(0, network.num_addresses - 2 - before_slots)


def _find_places(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int]:
    return _PLACES_OF_FEW if network.num_addresses < _FEW else _PLACES


def render_configuration(
    subnet: str,
    slots: int,
    *,
    port: int,
    ready: str,
    idempotent: Iterable[str],
    private: Iterable[str],
    in_flight: int,
    answer_within: float,
    admitted: frozenset[int] = frozenset(),
) -> str:
    """Return the proxy's configuration.

    Args:
        subnet: the addresses of the environment's network.
        slots: the number of slots.
        port: the port on which replicas listen.
        ready: the path of their health check.
        idempotent: the paths whose requests may be sent to a second replica, whatever the method.
        private: the paths that clients may not request, with those below them.
        in_flight: how many requests a replica gets at once; more wait in the proxy.
        answer_within: the seconds after which the proxy gives up on a replica that sends nothing.
        admitted: the slots that get requests when the proxy starts.
    """
    timeout = f"{round(answer_within * 1000)}ms"
    body = f"""\
defaults
    mode http
    timeout connect 2s
    timeout client {timeout}
    timeout server {timeout}
    timeout queue 30s
    timeout check 5s
    timeout http-request 30s
    timeout http-keep-alive 60s
    # A connection to a replica serves one request: none can be closed by a replica \
just as it is used again.
    option http-server-close
    option redispatch 1
    option splice-auto
    retries 4
    retry-on conn-failure empty-response response-timeout
    # A client that has gone needs no response: its request leaves the queue.
    option abortonclose
    default-server check inter 1s fastinter 100ms downinter 200ms rise 1 fall 3 \
maxconn {in_flight} observe layer4 error-limit 1 on-error sudden-death

frontend door
    # No HTTP/2, of which one connection carries many requests.
    bind :{PORT} proto h1
    option forwardfor
    # Without queries and headers, which can have secrets. The engine bounds the log, and lines \
that it is too busy for are lost.
    log stdout len 1024 format raw local0 info
    log-format "%ci %HM %HPO %ST, %B bytes in %Ta ms, %Tw ms in the queue, %s %ts"
    option dontlognull
{_refusals(private)}    # A replica may have executed a request that it did not respond to \
(RFC 9110, 9.2.2).
    acl idempotent method GET HEAD OPTIONS PUT DELETE TRACE
{_idempotent_paths(idempotent)}    http-request disable-l7-retry unless idempotent
    # A request goes on when it is whole or fills a buffer, and whole ones go first: who \
sends slowly keeps neither replicas nor others
    # waiting.
    option http-buffer-request
    http-request set-priority-class int(1) if {{ req.body_size gt {_WHOLE} }} \
or {{ req.hdr(transfer-encoding) -m found }}
    # One that was answered before it had sent everything, and sends nothing more, would \
keep its place at the replica.
    http-response set-timeout client 1s if {{ status ge 400 }}
    default_backend replicas

backend replicas
    balance leastconn
    option httpchk
    # With a host, as any client would ask: some applications refuse a request without one.
    http-check send meth GET uri {ready} ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
{_servers(subnet, slots, port, admitted)}
"""
    return f"""\
global
    fd-hard-limit 20000
    tune.bufsize {_BUFFER}
    stats socket {SOCKET} mode 600 level admin
    hard-stop-after {timeout}
    description {_compute_mark(body)}

{body}"""


def _refusals(private: Iterable[str]) -> str:
    """Return the rule that hides the private paths, and what an application may read as one."""
    paths = "|".join(re.escape(path).replace("/", "/+") for path in private)
    if not paths:
        return ""
    below = r"([/;]|$)"
    return f"""\
    acl private path,url_dec -m reg '^({paths}){below}' '/[.][.]?{below}'
    http-request deny deny_status 404 if private
"""


def _idempotent_paths(paths: Iterable[str]) -> str:
    listed = " ".join(paths)
    return f"    acl idempotent path -m str {listed}\n" if listed else ""


def _servers(subnet: str, slots: int, port: int, admitted: frozenset[int]) -> str:
    lines = []
    for slot in range(1, slots + 1):
        disabled = "" if slot in admitted else " disabled"
        lines.append(f"    server slot-{slot} {slot_address(subnet, slot)}:{port}{disabled}")
    return "\n".join(lines)


def read_admitted(text: str) -> frozenset[int] | None:
    """Return the slots that get requests when the proxy starts.

    None if the text is not a whole configuration, or was changed by hand.
    """
    head, _, body = text.partition("\n\n")
    if f"description {_compute_mark(body)}" not in head:
        return None
    return frozenset(
        int(number) for number in re.findall(r"^ +server slot-(\d+) \S+$", body, re.MULTILINE)
    )


def read_mark(text: str) -> str:
    """Return the mark of a configuration, which does not depend on the slots that it admits."""
    return next(
        line.split()[1] for line in text.splitlines() if line.strip().startswith("description")
    )


def _compute_mark(body: str) -> str:
    return hashlib.sha256(body.replace(" disabled", "").encode()).hexdigest()[:16]
