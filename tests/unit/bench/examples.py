"""Figures of a run of the benchmark, as examples."""

from __future__ import annotations

from typing import Any

from bench.figures import (
    Burst,
    Case,
    Download,
    FirstToken,
    Machine,
    Measured,
    OnAzure,
    Rolled,
    Rollout,
    Run,
    Second,
    Served,
    Transfer,
)

MODEL = 250_000_000


def run(**changes: Any) -> Run:
    """Return a release of a model; a test sets what matters to it."""
    values: dict[str, Any] = {
        "seconds": 9.0,
        "cpu": 1.5,
        "peak": 70_000_000,
        "read": 1000,
        "written": 2000,
        "engine_cpu": 3.0,
        "engine_peak": 300_000_000,
        "stored": 1000,
        "received": 2000,
        "sent": 3000,
        "stages": {
            "start and fetch": 1.0,
            "build": 0.2,
            "join": 0.1,
            "load and smoke test": 4.0,
            "push": 0.7,
            "roll out": 3.0,
        },
    }
    return Run(**(values | changes))


def docker_run(**changes: Any) -> Run:
    """Return the same by build and push."""
    values: dict[str, Any] = {"seconds": 12.0, "stages": {"docker build": 4.0, "docker push": 8.0}}
    return run(**(values | changes))


def case(name: str, **changes: Any) -> Case:
    """Return a case of two repetitions."""
    values: dict[str, Any] = {
        "name": name,
        "title": name,
        "model": MODEL,
        "suite": (run(), run()),
        "docker": (docker_run(), docker_run()),
    }
    return Case(**(values | changes))


def served(server: str, clients: int, *rates: float) -> Served:
    """Return a server with these rates of requests in its bursts."""
    bursts = tuple(
        Burst(requests=round(rate * 2), failures=0, seconds=2.0, p50=20.0, p99=50.0)
        for rate in rates
    )
    return Served(server=server, picture="small", body=1000, clients=clients, bursts=bursts)


def rolled(load: str, **changes: Any) -> Rolled:
    """Return two rollouts at thirty requests a second."""
    values: dict[str, Any] = {
        "target": "docker",
        "load": load,
        "clients": 4,
        "pause": 0.1,
        "mixed": 0,
        "rest": Burst(requests=150, failures=0, seconds=5.0, p50=11.0, p99=22.0),
        "rolling": Burst(requests=600, failures=0, seconds=20.0, p50=33.0, p99=44.0),
        "rollouts": (
            Rollout(name="new model", begin=5.0, end=14.5),
            Rollout(name="taken back", begin=14.6, end=25.0),
        ),
        "seconds": tuple(Second(at=float(at), requests=30, p50=20.0, p99=40.0) for at in range(25)),
    }
    return Rolled(**(values | changes))


def on_azure(*library: float) -> OnAzure:
    """Return a first token, and downloads that take the suite a second and the library these."""
    token = FirstToken(process=0.9, cold=0.4, warm=0.1, requests=2)
    download = Download(size=230_000_000, suite=(1.0,) * len(library), library=library)
    return OnAzure(tokens=(token,), download=download if library else None)


def measured(**changes: Any) -> Measured:
    """Return a whole run that meets every aim."""
    values: dict[str, Any] = {
        "at": "2026-11-22 11:17 UTC",
        "commit": "0123456789ab",
        "command": "python -m bench",
        "took": 600.0,
        "machine": Machine(
            system="Linux",
            processor="some",
            cores=2,
            memory=8_000_000_000,
            python="3.11",
            engine="Docker 20.10",
            docker="28.2",
        ),
        "cases": (
            case("first"),
            case("unchanged", suite=(run(seconds=1.1, stored=0), run(seconds=1.3, stored=0))),
            case("code", weights_read=(500_000, 600_000)),
            case(f"model-{MODEL}"),
        ),
        "transfer": Transfer(size=MODEL, suite=(0.9, 1.1), put=(0.8, 1.0)),
        "listing": (0.3, 0.2, 0.4),
        "served": (served("proxy", 1, 50.0, 60.0), served("proxy", 4, 90.0, 100.0)),
        "rolled": (rolled("steady"), rolled("all it can")),
        "azure": on_azure(2.5, 3.5),
    }
    return Measured(**(values | changes))
