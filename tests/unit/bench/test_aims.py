from __future__ import annotations

from typing import Any

import pytest

from bench.aims import judge
from bench.figures import Burst, Download, OnAzure, Transfer
from tests.unit.bench.examples import (
    MODEL,
    case,
    docker_run,
    measured,
    on_azure,
    rolled,
    run,
)


def test_a_good_run_meets_every_aim() -> None:
    """Each promise has one result, with what was found."""
    found = {aim.promise: (aim.found, aim.met) for aim in judge(measured())}

    assert len(found) == 13
    assert all(met for _, met in found.values())
    assert found["nothing changed: less than 2 s"] == ("1.20 s", True)
    assert found[
        "2 rollouts in a row on docker, steady: at 20 requests a second or more, none fails"
    ] == (
        "0 of 750 at 30 a second",
        True,
    )
    assert found["`invoke --list` takes less than 0.5 s"] == ("0.30 s", True)
    assert found["model-250000000: pushed 5 times faster than by docker build and push"] == (
        "6.0 times",
        True,
    )


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        (
            {"cases": (case("unchanged", suite=(run(seconds=2.1, stored=0),)),)},
            "nothing changed: less than 2 s",
        ),
        (
            {"cases": (case("unchanged", suite=(run(seconds=1.0, stored=1),)),)},
            "nothing changed: 0 bytes uploaded",
        ),
        (
            {"cases": (case("unchanged", suite=(run(seconds=1.0, stored=0, received=MODEL),)),)},
            "nothing changed: 0 bytes uploaded",
        ),
        (
            {"cases": (case("code", weights_read=(3_000_000,)),)},
            "code changed: no byte of the model is read",
        ),
        (
            {"cases": (case("code", weights_read=(0,), suite=(run(received=MODEL),)),)},
            "code changed: no byte of the model is sent",
        ),
        (
            {"cases": (case(f"model-{MODEL}", docker=(docker_run(seconds=9.9),) * 2),)},
            "pushed 5 times faster",
        ),
        ({"cases": (case("first", suite=(run(peak=150_000_000),)),)}, "memory of the suite"),
        ({"transfer": Transfer(size=MODEL, suite=(1.4,), put=(1.0,))}, "one plain streamed PUT"),
        ({"azure": on_azure(1.9, 1.9)}, "2 times as fast as by azure-storage-blob"),
        ({"listing": (0.6,)}, "`invoke --list`"),
        ({"rolled": (rolled("steady", mixed=1),)}, "no answer is mixed up"),
        (
            {
                "rolled": (
                    rolled(
                        "steady",
                        rolling=Burst(requests=600, failures=1, seconds=20.0, p50=1.0, p99=2.0),
                    ),
                )
            },
            "none fails",
        ),
        (
            {
                "rolled": (
                    rolled(
                        "steady",
                        rest=Burst(requests=600, failures=1, seconds=20.0, p50=1.0, p99=2.0),
                    ),
                )
            },
            "none fails",
        ),
        (
            {
                "rolled": (
                    rolled(
                        "steady",
                        rolling=Burst(requests=380, failures=0, seconds=20.0, p50=1.0, p99=2.0),
                    ),
                )
            },
            "20 requests a second",
        ),
    ],
)
def test_each_aim_can_be_missed(changes: dict[str, Any], promise: str) -> None:
    """A figure beyond its limit misses its aim, and no other."""
    missed = [aim.promise for aim in judge(measured(**changes)) if not aim.met]

    assert len(missed) == 1
    assert promise in missed[0]


def test_parts_that_were_left_out_are_not_judged() -> None:
    """A run of one part has no results for the others."""
    assert judge(measured(cases=(), transfer=None, listing=(), rolled=(), azure=None)) == ()


def test_reads_that_could_not_be_observed_are_no_success() -> None:
    """On a file system in memory, reads are not visible; the report says so."""
    found = {aim.promise: (aim.found, aim.met) for aim in judge(measured(cases=(case("code"),)))}

    assert found["code changed: no byte of the model is read"] == (
        "not seen: `TMPDIR` is in memory",
        False,
    )
    assert found["code changed: no byte of the model is sent"][1]


def test_only_the_model_of_the_promised_size_has_the_aim() -> None:
    """With a small model the fixed costs weigh more, and nothing is promised."""
    small = Download(size=30_000_000, suite=(1.0,), library=(1.0,))
    quick = measured(
        cases=(case("model-30000000"),), azure=OnAzure(tokens=on_azure().tokens, download=small)
    )
    assert not [aim for aim in judge(quick) if "fast" in aim.promise]
