"""The headers of golden cases, which may name variables of the application."""

from __future__ import annotations

import json

import pytest

from deploy.errors import SettingsInvalid
from deploy.model import golden_cases, headers
from deploy.model.golden_cases import GoldenSet
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import CaseResult
from deploy.variables import NO_VARIABLES, Variables
from tests.fakes.endpoints import endpoint_with

SECRET = 'planted "\\key'
VARIABLES = Variables({"TENANT": "north", "EMPTY": ""}, {"API_KEY": SECRET})
TABLES = "[environments.local.env] or [environments.local.secrets]"


def case(value: str, **expected: object) -> GoldenCase:
    """Return a golden case with a header of that value."""
    request = GoldenRequest(path="/score", headers={"X-Key": value})
    return GoldenCase(
        name="three", request=request, expect=ExpectedResponse.model_validate(expected)
    )


def fill(value: str, variables: Variables = VARIABLES) -> str:
    """Return a header's value after the variables that it names were put in."""
    return headers.fill(case(value), variables, TABLES)["X-Key"]


def refusal(value: str, variables: Variables = VARIABLES) -> SettingsInvalid:
    """Return why a header is refused."""
    with pytest.raises(SettingsInvalid) as caught:
        fill(value, variables)
    return caught.value


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("plain", "plain"),
        ("${API_KEY}", SECRET),
        ("a ${TENANT}/${TENANT} b", "a north/north b"),
        ("${EMPTY}", ""),
        ("$TENANT $(TENANT) $${TENANT}", "$TENANT $(TENANT) $north"),
        ("${TENANT", "${TENANT"),
    ],
)
def test_a_variable_in_braces_is_replaced_by_its_value(value: str, filled: str) -> None:
    """Everything else stays as it is."""
    assert fill(value) == filled


def test_a_value_is_not_searched_for_names() -> None:
    """A variable cannot lead to another."""
    assert fill("${A}", Variables({"A": "${B}", "B": "no"})) == "${B}"


@pytest.mark.parametrize("name", ["HOME", "PATH", "", "API_KEY ", "api_key", "TENANTS"])
def test_only_the_tables_of_the_settings_are_known(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of this process are none of them; case, header and tables are named."""
    monkeypatch.setenv("HOME", "planted")
    error = refusal(f"${{{name}}}")
    assert error.on == "golden case three, header X-Key"
    assert error.what.endswith(f": {name}")
    assert TABLES in error.next
    assert "planted" not in str(error)


@pytest.mark.parametrize(
    "value",
    ["planted\r\nHost: evil", "planted\n", " planted", "planted ", "plantedü", "planted\x7f", "\t"],
)
def test_a_value_that_no_header_can_have_is_refused_and_not_shown(value: str) -> None:
    """A line's end would begin another header."""
    error = refusal("${KEY}", Variables(secrets={"KEY": value}))
    assert "with KEY the header" in error.what
    assert "planted" not in f"{error} {error.next}"


def test_a_header_does_not_grow_without_end() -> None:
    """A model could name a long variable many times."""
    long = Variables({"LONG": "x" * 8000})
    assert len(fill("${LONG}", long)) == 8000
    refusal("${LONG}" * 100_000, long)
    assert fill("y" * 9000, long) == "y" * 9000


def test_an_unknown_name_is_found_before_anything_is_played() -> None:
    """A set of cases is given its variables first."""
    golden_set = GoldenSet((case("plain"), case("${NO}")), {})
    with pytest.raises(SettingsInvalid):
        golden_set.with_variables(VARIABLES, TABLES)
    with pytest.raises(SettingsInvalid):
        golden_cases.play(golden_set, endpoint_with(b"{}"))


def play(golden_case: GoldenCase, body: bytes, status: int = 200, **sent: str) -> CaseResult:
    """Return the result of a case, whose application gives that response."""
    endpoint = endpoint_with(body, status, **sent)
    golden_set = GoldenSet((golden_case,), {}).with_variables(VARIABLES, TABLES)
    (result,) = golden_cases.play(golden_set, endpoint).cases
    assert endpoint.replica
    assert [asked.headers["X-Key"] for asked in endpoint.replica.requests] == [SECRET]
    return result


ECHO = json.dumps({"key": SECRET, "all": [{"key": SECRET}]}).encode()


@pytest.mark.parametrize(
    ("expected", "body", "status", "location"),
    [
        ({}, SECRET.encode(), 200, ""),
        ({}, b"x" * 195 + SECRET.encode(), 200, ""),
        ({}, ECHO, 401, ""),
        ({}, b"", 307, f"http://replica/?key={SECRET}"),
        ({"contains": "no"}, ECHO, 200, ""),
        ({"json": [{"at": "/key", "equals": "no"}]}, ECHO, 200, ""),
        ({"json": [{"at": "/key", "near": 1}]}, ECHO, 200, ""),
        ({"json": [{"at": "", "equals": "no"}]}, ECHO, 200, ""),
        ({"json": [{"at": "/all", "equals": "no"}]}, ECHO, 200, ""),
        ({"json": [{"at": "/key", "equals": "no"}]}, SECRET.encode(), 200, ""),
    ],
)
def test_what_a_response_repeats_of_a_secret_is_not_shown(
    expected: dict[str, object], body: bytes, status: int, location: str
) -> None:
    """Neither in the answer nor in what is wrong with it, and not a part of it at the end."""
    sent = {"Location": location} if location else {}
    result = play(case("${API_KEY}", **expected), body, status, **sent)
    assert "planted" not in repr(result)


def test_a_case_is_compared_with_the_whole_response() -> None:
    """Only what is shown of it is shortened."""
    passed = play(case("${API_KEY}", json=[{"at": "/key", "equals": SECRET}]), ECHO)
    assert (passed.problem, passed.answer) == ("", "…")


def test_values_that_are_no_secrets_are_shown() -> None:
    """They are in the settings."""
    golden_set = GoldenSet((case("${TENANT}"),), {}).with_variables(VARIABLES, TABLES)
    assert golden_cases.play(golden_set, endpoint_with(b"north")).cases[0].answer == "north"


def test_cases_without_names_need_no_variables() -> None:
    """As before there were any."""
    golden_set = GoldenSet((case("plain"),), {})
    assert golden_set.with_variables(NO_VARIABLES, "") == golden_set
