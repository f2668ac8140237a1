"""Golden cases and the responses of an endpoint to them, without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deploy.clients.http import Endpoint
from deploy.model.golden_cases import GoldenSet
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import CaseResult, Verdict
from deploy.variables import Variables

GOLDEN_SET = GoldenSet(
    (GoldenCase(name="three", request=GoldenRequest(path="/score"), expect=ExpectedResponse()),), {}
)


def golden_set_with(key: str) -> GoldenSet:
    """Return a golden case with a header X-Key."""
    request = GoldenRequest(path="/score", headers={"X-Key": key})
    case = GoldenCase(name="three", request=request, expect=ExpectedResponse())
    return GoldenSet((case,), {})


def verdict(url: str, *problems: str, answer: str = "3, 99.1") -> Verdict:
    """Return a verdict of one case: a hit, or a miss with that problem."""
    problem = "; ".join(problems)
    return Verdict(
        url=url,
        cases=(CaseResult(name="three", milliseconds=12.3, answer=answer, problem=problem),),
    )


class FakePlayer:
    """A player that asks a function for the problem of a URL's responses ("" for none).

    Attributes:
        wrong: the problems of the responses by URL, which come before the function's.
        played: the URLs that were played, with the names of the cases.
        variables: the variables that the headers of the cases could name, for each of these.
    """

    def __init__(self, problem: Callable[[], str] = lambda: "") -> None:
        self.problem = problem
        self.wrong: dict[str, str] = {}
        self.played: list[tuple[str, tuple[str, ...]]] = []
        self.variables: list[Variables] = []

    def __call__(self, golden_set: GoldenSet, endpoint: Endpoint) -> Verdict:
        url = endpoint.url
        self.variables.append(golden_set.variables)
        self.played.append((url, tuple(case.name for case in golden_set.cases)))
        return verdict(url, self.wrong.get(url, "") or self.problem())


def return_in_turn(problems: Iterable[str]) -> Callable[[], str]:
    """Return a function that returns the first problem, then the second, and "" after the last."""
    left = iter(problems)
    return lambda: next(left, "")
