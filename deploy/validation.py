"""What is wrong with a value from outside, in this suite's words."""

from __future__ import annotations

from pydantic_core import ErrorDetails

_TEXT = "should be text"
_WHOLE = "should be a whole number"
_NUMBER = "should be a number"
_SWITCH = "should be true or false"
_LIST = "should be a list"
_TABLE = "should be a table"
# By the names of pydantic; what our own validators find has a sentence already.
_SENTENCES = {
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "string_type": _TEXT,
    "string_unicode": _TEXT,
    "string_pattern_mismatch": "should match the pattern {pattern}",
    "string_too_short": "should have at least {min_length} characters",
    "string_too_long": "should have at most {max_length} characters",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "should be a finite number",
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "none_required": "should be null",
    "greater_than": "should be above {gt}",
    "greater_than_equal": "should be at least {ge}",
    "less_than": "should be below {lt}",
    "less_than_equal": "should be at most {le}",
    "literal_error": "should be {expected}",
    "union_tag_invalid": "should be one of {expected_tags}",
    "too_short": "should have at least {min_length} items",
    "too_long": "should have at most {max_length} items",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _TABLE,
    "mapping_type": _TABLE,
    "model_type": _TABLE,
    "model_attributes_type": _TABLE,
}


def describe(problem: ErrorDetails) -> str:
    """Return what a value should be, or that it is missing or unknown."""
    sentence = _SENTENCES.get(problem["type"])
    if sentence is None:
        return problem["msg"].removeprefix("Value error, ")
    return sentence.format_map(problem.get("ctx", {}))


def describe_at(problem: ErrorDetails, root: str) -> str:
    """Return what is wrong after the path of keys that leads there.

    Args:
        problem: the problem.
        root: the name of the whole value, for a problem that is not at a key.
    """
    path = ".".join(map(str, problem["loc"])) or root
    return f"{path}: {describe(problem)}"
