"""Golden cases and a front door's answers to them, without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deploy.clients.http import Endpoint
from deploy.model.golden import GoldenSet
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import CaseResult, Verdict

GOLDEN_SET = GoldenSet(
    (GoldenCase(name="three", request=GoldenRequest(path="/score"), expect=ExpectedResponse()),), {}
)


def verdict(url: str, *problems: str, answer: str = "3, 99.1") -> Verdict:
    """One case: a hit, or a miss with that problem."""
    problem = "; ".join(problems)
    return Verdict(
        url=url,
        cases=(CaseResult(name="three", milliseconds=12.3, answer=answer, problem=problem),),
    )


class FakePlayer:
    """Plays golden cases by asking a function what is wrong with the answers of a URL (nothing, if it gives an empty text).

    Attributes:
        wrong: what is wrong with the answers of a URL, whatever the function says.
        played: the URLs that were asked, with the names of the cases.
    """

    def __init__(self, problem: Callable[[], str] = lambda: "") -> None:
        self.problem = problem
        self.wrong: dict[str, str] = {}
        self.played: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, proof: GoldenSet, endpoint: Endpoint) -> Verdict:
        url = endpoint.url
        self.played.append((url, tuple(case.name for case in proof.cases)))
        return verdict(url, self.wrong.get(url, "") or self.problem())


def return_in_turn(problems: Iterable[str]) -> Callable[[], str]:
    """What is wrong the first time, the second time, and so on; nothing after that."""
    left = iter(problems)
    return lambda: next(left, "")
