from __future__ import annotations

import pytest

from bench.releases import stages


def test_stages_are_read_from_the_log_lines_of_a_release() -> None:
    """The last line of a stage ends it; other lines do not count."""
    lines = [
        (0.9, "· model  imagenet@2, 18.7 MB, fetched in 0.1 s"),
        (1.0, "· code   0123, building: app/routes.py changed"),
        (3.0, "    exporting the app image: 264 MB in 3.5 s"),
        (3.5, "· code   0123, built in 2.5 s"),
        (3.6, "· image  sha256:8d65d9bc993a"),
        (5.6, "· smoke  2 golden cases passed in 1.6 s"),
        (5.7, "· push   90.5 kB in 3 blobs that the registry lacked"),
        (5.8, "· push   127.0.0.1:5000/app@sha256:8d65d9bc993a"),
        (8.8, "· serves http://127.0.0.1:1, release 2, in 8.0 s"),
    ]

    found = dict(stages(lines, 9.0))

    assert list(found) == [
        "start and fetch",
        "build",
        "join",
        "load and smoke test",
        "push",
        "roll out",
        "verify and end",
    ]
    assert list(found.values()) == pytest.approx([0.9, 2.6, 0.1, 2.0, 0.2, 3.0, 0.2])


def test_stages_that_did_not_run_are_left_out() -> None:
    """Without a change there is no smoke test and no push."""
    lines = [
        (0.7, "· model  m, nothing to fetch"),
        (0.8, "· code   c, nothing to build"),
        (1.0, "· serves u, release 1 already"),
    ]

    assert dict(stages(lines, 1.5)) == pytest.approx(
        {"start and fetch": 0.7, "build": 0.1, "roll out": 0.2, "verify and end": 0.5}
    )
