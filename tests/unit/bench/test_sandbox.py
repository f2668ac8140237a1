from __future__ import annotations

from pathlib import Path

import pytest

from bench.sandbox import BENCH_LABEL, RegistryCounters, label_stages, parse_counters

COUNTERS = """\
1234567\t/var/lib/registry
Inter-|   Receive                          |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0
  eth0: 2002000      20    0    0    0     0          0         0   303000      30    0    0    0
"""


def test_a_registrys_counters_are_read() -> None:
    """They are its storage and both directions of its network interface, not of loopback."""
    assert parse_counters(COUNTERS) == RegistryCounters(
        stored=1234567, received=2002000, sent=303000
    )


def test_the_difference_of_counters_is_the_traffic_between_them() -> None:
    """Each field is subtracted."""
    assert RegistryCounters(10, 20, 30) - RegistryCounters(1, 5, 30) == RegistryCounters(9, 15, 0)


def test_counters_without_an_interface_are_an_error() -> None:
    """A registry without counters must not look like one without traffic."""
    with pytest.raises(ValueError, match="no network interface"):
        parse_counters(COUNTERS.replace("eth0", "wan0"))


def test_stages_that_hold_the_application_are_labelled(tmp_path: Path) -> None:
    """Stages that no release changes stay as they are, so that the build cache has them."""
    file = tmp_path / "Dockerfile"
    file.write_text(
        "FROM $BASE AS python\nRUN a\nFROM python AS dependencies\nRUN b\n"
        "FROM python AS code\nCOPY app /app\nFROM python\nRUN c\n"
    )
    label_stages(file, "me")

    assert file.read_text().splitlines() == [
        "FROM $BASE AS python",
        "RUN a",
        "FROM python AS dependencies",
        "RUN b",
        "FROM python AS code",
        f"LABEL {BENCH_LABEL}=me",
        "COPY app /app",
        "FROM python",
        f"LABEL {BENCH_LABEL}=me",
        "RUN c",
    ]


def test_a_dockerfile_that_cannot_be_labelled_is_refused(tmp_path: Path) -> None:
    """Its images would never be found and removed."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM base AS python\n")

    with pytest.raises(ValueError, match="no stage"):
        label_stages(file, "me")
