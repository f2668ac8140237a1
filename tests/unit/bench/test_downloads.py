from __future__ import annotations

from bench.downloads import take_turns


def test_both_ways_take_turns_to_be_the_first() -> None:
    """So that what the machine does meanwhile hits both; the result has the same order."""
    order: list[str] = []
    seconds = {"suite": 1.0, "library": 2.0}

    def download(way: str) -> float:
        order.append(way)
        return seconds[way]

    assert [take_turns(turn, download) for turn in range(2)] == [(1.0, 2.0), (1.0, 2.0)]
    assert order == ["suite", "library", "library", "suite"]
