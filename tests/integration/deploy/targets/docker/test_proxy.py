"""The real proxy: how it loads a configuration, and what its admin socket says."""

from __future__ import annotations

import csv
import http.client
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Spec
from deploy.clock import Clock
from deploy.errors import EngineFailed
from deploy.targets.docker.haproxy import (
    COMMAND,
    CONFIG,
    PORT,
    SOCKET,
    STATE_FOLDER,
    render_configuration,
    slot_address,
)
from deploy.targets.docker.proxy import Proxy
from tests.contracts.engine import wait_until
from tests.integration.deploy.responder import responder

pytestmark = pytest.mark.integration

Start = Callable[..., str]
IN_FLIGHT = 16


@pytest.fixture
def subnet(engine: DockerEngine, prefix: str) -> str:
    """A network for one test."""
    return engine.ensure_network(prefix, {"dev.twinship.test": prefix})


@pytest.fixture
def text(subnet: str) -> Callable[..., str]:
    """Renders configurations for that network."""

    def made(slots: int = 3, ready: str = "/readyz", admitted: frozenset[int] = frozenset()) -> str:
        return render_configuration(
            subnet,
            slots,
            port=8080,
            ready=ready,
            idempotent=("/lost",),
            private=("/metrics", "/openapi.json"),
            in_flight=IN_FLIGHT,
            answer_within=60.0,
            admitted=admitted,
        )

    return made


@pytest.fixture
def proxy(
    engine: DockerEngine, prefix: str, parts_image: str, subnet: str, text: Callable[..., str]
) -> Proxy:
    """A running proxy with three slots of which none is admitted."""
    labels = {"dev.twinship.test": prefix}
    engine.ensure_volume(prefix, labels)
    volumes = {prefix: (STATE_FOLDER, False)}
    spec = Spec(
        name=f"{prefix}-proxy",
        image=parts_image,
        labels=labels,
        command=COMMAND,
        network=prefix,
        ip=slot_address(subnet, None),
        volumes=volumes,
    )
    made = engine.create(spec)
    engine.put_file(made.id, f"{STATE_FOLDER}/{CONFIG}", text().encode())
    engine.start(made.id)
    proxy = Proxy(engine, made.id)
    proxy.wait()
    return proxy


@pytest.fixture
def start(engine: DockerEngine, prefix: str, parts_image: str, subnet: str) -> Start:
    """Starts a replica at the address of a slot, and returns its container's id."""

    def started(slot: int, status: int = 200) -> str:
        command = responder("replica", status)
        labels = {"dev.twinship.test": prefix}
        spec = Spec(
            name=f"{prefix}-{slot}",
            image=parts_image,
            labels=labels,
            command=command,
            network=prefix,
            ip=slot_address(subnet, slot),
        )
        made = engine.create(spec)
        engine.start(made.id)
        return made.id

    return started


def test_the_proxy_accepts_the_configuration(
    proxy: Proxy, engine: DockerEngine, text: Callable[..., str]
) -> None:
    """It reports neither errors nor warnings, with admitted slots and without."""
    for made in (text(), text(slots=50, admitted=frozenset({1, 7})), text(ready="/healthz?full=1")):
        engine.put_file(proxy.container, f"{STATE_FOLDER}/checked.cfg", made.encode())
        assert engine.execute(
            proxy.container, ("haproxy", "-c", "-f", f"{STATE_FOLDER}/checked.cfg")
        ) == (
            0,
            "",
        )


def test_the_running_proxy_says_which_configuration_it_has(
    proxy: Proxy, text: Callable[..., str]
) -> None:
    """Whichever slots it admits."""
    assert proxy.read().has(text(admitted=frozenset({1})))
    assert not proxy.read().has(text(slots=4))


def test_a_reload_loads_a_new_configuration(
    proxy: Proxy, start: Start, text: Callable[..., str]
) -> None:
    """The proxy then has more slots, and admits those of the new file."""
    start(1)
    proxy.configure(text(slots=5, admitted=frozenset({1})))
    assert sorted(proxy.slots()) == [1, 2, 3, 4, 5]
    wait_until(lambda: proxy.slots()[1].healthy, "slot 1 is healthy")
    assert [slot.number for slot in proxy.slots().values() if slot.admitted] == [1]


def test_a_configuration_that_cannot_be_loaded_changes_nothing(
    proxy: Proxy,
    start: Start,
    engine: DockerEngine,
    text: Callable[..., str],
) -> None:
    """Slots can still be set, and a later configuration is loaded."""
    start(1)
    proxy.admit(1, "drain")
    wait_until(lambda: proxy.slots()[1].healthy, "slot 1 is healthy")
    unknown = text(slots=4).replace("option splice-auto", "option of-another-version")
    # Seven times as fast as this machine's, so that the proxy is waited for 2 s and not 15 s.
    impatient = Clock(now=lambda: time.monotonic() * 7)
    with pytest.raises(EngineFailed, match="did not load its new configuration"):
        Proxy(engine, proxy.container, impatient).configure(unknown)
    proxy.admit(1, "ready")
    assert (proxy.slots()[1].admitted, proxy.slots()[1].healthy) == (True, True)
    assert (engine.files(proxy.container, STATE_FOLDER) or {})[CONFIG] == text().encode()
    proxy.configure(text(slots=5))
    assert sorted(proxy.slots()) == [1, 2, 3, 4, 5]


def test_a_slot_that_does_not_exist_cannot_be_set(proxy: Proxy) -> None:
    """The proxy refuses without an exit code, and that is an error."""
    with pytest.raises(EngineFailed, match="slot 4"):
        proxy.admit(4, "drain")


def test_a_proxy_that_crashes_is_waited_for(
    proxy: Proxy, engine: DockerEngine, text: Callable[..., str]
) -> None:
    """Until the engine has restarted it, at any command."""
    engine.enable_restart(proxy.container)
    for ask in (proxy.slots, lambda: proxy.read().has(text()), lambda: proxy.admit(1, "drain")):
        with suppress(EngineFailed):
            engine.execute(proxy.container, ("sh", "-c", "kill -TERM 1"))
        ask()
    assert (proxy.slots()[1].admitted, proxy.slots()[1].checked) == (False, True)


def test_a_replica_is_checked_while_it_gets_no_requests(proxy: Proxy, start: Start) -> None:
    """A drained slot is healthy, a ready one is admitted as well, a disabled one is neither."""
    proxy.admit(1, "drain")
    assert not proxy.slots()[1].healthy
    start(1)
    wait_until(lambda: proxy.slots()[1].healthy, "it is healthy")
    assert not proxy.slots()[1].admitted
    proxy.admit(1, "ready")
    assert (proxy.slots()[1].admitted, proxy.slots()[1].healthy, proxy.slots()[1].in_flight) == (
        True,
        True,
        0,
    )
    proxy.admit(1, "maint")
    assert (proxy.slots()[1].admitted, proxy.slots()[1].healthy) == (False, False)


def test_the_check_of_an_earlier_replica_does_not_count(
    proxy: Proxy, start: Start, engine: DockerEngine
) -> None:
    """A replica that is never ready is never healthy, in a slot that was used before."""
    proxy.admit(1, "drain")
    earlier = start(1)
    wait_until(lambda: proxy.slots()[1].healthy, "the earlier replica is healthy")
    engine.remove(earlier)
    proxy.admit(1, "maint")
    proxy.admit(1, "drain")
    assert not proxy.slots()[1].healthy
    start(1, status=503)

    def is_checked() -> bool:
        slot = proxy.slots()[1]
        assert not slot.healthy
        return slot.status == 503

    wait_until(is_checked, "the replica itself was checked")


def test_a_replica_that_ends_is_unhealthy(proxy: Proxy, start: Start, engine: DockerEngine) -> None:
    """The proxy sends its requests to others."""
    proxy.admit(2, "drain")
    earlier = start(2)
    wait_until(lambda: proxy.slots()[2].healthy, "it is healthy")
    proxy.admit(2, "ready")
    engine.remove(earlier)
    wait_until(lambda: not proxy.slots()[2].healthy, "it is unhealthy")
    assert proxy.slots()[2].admitted


def ask(subnet: str, path: str, method: str = "GET") -> int:
    """Return the status of the proxy's response to a request; 0 if there is none."""
    connection = http.client.HTTPConnection(slot_address(subnet, None), PORT, timeout=20)
    with closing(connection), suppress(http.client.HTTPException, OSError):
        connection.request(method, path, b"{}" if method == "POST" else None)
        return connection.getresponse().status
    return 0


@pytest.fixture
def serving(proxy: Proxy, start: Start) -> list[str]:
    """Return the replicas in two slots that get requests."""
    replicas = [start(1), start(2)]
    for slot in (1, 2):
        proxy.admit(slot, "ready")
    wait_until(lambda: all(proxy.slots()[slot].healthy for slot in (1, 2)), "they are healthy")
    return replicas


@pytest.mark.usefixtures("serving")
def test_private_paths_are_hidden_however_they_are_written(subnet: str) -> None:
    """The application could read each of them as a private path."""
    hidden = ("/metrics", "/%6Detrics", "//metrics", "/metrics/x", "/a/../metrics", "/metrics?a=b")
    assert {path: ask(subnet, path) for path in hidden} == dict.fromkeys(hidden, 404)
    shown = ("/", "/metrics2", "/a?b=/metrics", "/openapiXjson")
    assert {path: ask(subnet, path) for path in shown} == dict.fromkeys(shown, 200)


@pytest.mark.usefixtures("serving")
def test_http_2_without_an_upgrade_is_refused(subnet: str) -> None:
    """A client that begins with the preface of HTTP/2 (RFC 9113, 3.4) gets no frames."""
    with socket.create_connection((slot_address(subnet, None), PORT), timeout=20) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.usefixtures("serving")
def test_a_request_that_a_replica_drops_is_repeated_where_that_does_no_harm(
    proxy: Proxy, subnet: str, engine: DockerEngine
) -> None:
    """Each try is a session of a slot: a GET, or a request of an idempotent path, has several."""
    tries = {}
    for method, path in (("GET", "/lost-too"), ("POST", "/lost"), ("POST", "/lost-too")):
        before = count_sessions(engine, proxy)
        assert ask(subnet, path, method) == 502
        tries[method, path] = count_sessions(engine, proxy) - before
    assert tries == {("GET", "/lost-too"): 5, ("POST", "/lost"): 5, ("POST", "/lost-too"): 1}


def count_sessions(engine: DockerEngine, proxy: Proxy) -> int:
    """Return the number of connections that were opened to replicas."""
    rows = read_rows(engine, proxy)
    return sum(int(row["stot"]) for row in rows if row["svname"].startswith("slot-"))


def read_rows(engine: DockerEngine, proxy: Proxy) -> list[dict[str, str]]:
    """Return the proxy's own statistics of slots and of all of them together."""
    ask_socket = f"echo 'show stat' | socat -t 5 - UNIX-CONNECT:{SOCKET}"
    _, shown = engine.execute(proxy.container, ("sh", "-c", ask_socket))
    table = csv.DictReader(shown.lstrip("# ").splitlines())
    return [row for row in table if row["pxname"] == "replicas"]


@pytest.mark.usefixtures("serving")
def test_a_client_that_has_gone_leaves_the_queue(
    proxy: Proxy, subnet: str, engine: DockerEngine
) -> None:
    """Its request reaches no replica, and those behind it wait no longer for it."""
    places = 2 * IN_FLIGHT
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((slot_address(subnet, None), PORT), 20))
            for _ in range(places + 3)
        ]
        for client in clients:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: count_waiting(engine, proxy) == 3, "three requests wait")
        for client in clients[-3:]:
            client.shutdown(socket.SHUT_WR)
        wait_until(lambda: count_waiting(engine, proxy) == 0, "none waits")
        assert sum(slot.in_flight for slot in proxy.slots().values()) == places


def count_waiting(engine: DockerEngine, proxy: Proxy) -> int:
    """Return how many requests wait for a replica."""
    return sum(int(row["qcur"]) for row in read_rows(engine, proxy))
