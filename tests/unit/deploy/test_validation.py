"""The sentences about wrong values from outside."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from deploy.validation import describe, describe_at


class Part(BaseModel):
    """A part of a value."""

    model_config = ConfigDict(extra="forbid", strict=True)

    size: int = Field(default=1, ge=1)
    kind: str = "round"

    @field_validator("kind")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value != "round":
            raise ValueError("it has to be round")
        return value


class Whole(BaseModel):
    """A value with a part and a list of them."""

    model_config = ConfigDict(extra="forbid")

    part: Part
    others: tuple[Part, ...] = ()


WRONG = [
    ({"part": {"size": 0}}, "part.size", "should be at least 1"),
    ({"part": {"size": "2"}}, "part.size", "should be a whole number"),
    ({"part": {"kind": "flat"}}, "part.kind", "it has to be round"),
    ({"part": {}, "others": [{}, {"sise": 2}]}, "others.1.sise", "unknown key"),
    ({}, "part", "missing"),
    ([], "whole", "should be a table"),
]


@pytest.mark.parametrize(("value", "place", "sentence"), WRONG)
def test_a_problem_is_its_place_and_a_sentence(value: object, place: str, sentence: str) -> None:
    """A problem of the whole value has the name of that as its place."""
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(value)
    (problem,) = caught.value.errors()
    assert describe(problem) == sentence
    assert describe_at(problem, "whole") == f"{place}: {sentence}"
