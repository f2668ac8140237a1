"""The variables of a release as a value."""

from __future__ import annotations

import json

from deploy.variables import Variables


def test_variables_that_a_process_would_find_changed_are_named() -> None:
    """A variable that only moved from one table to the other is not among them."""
    before = Variables({"MODE": "a", "GONE": "", "SAME": "1"}, {"KEY": "x", "MOVED": "y"})
    after = Variables({"MODE": "b", "SAME": "1", "MOVED": "y"}, {"KEY": "z", "NEW": ""})
    assert before.differences(after) == after.differences(before) == ("GONE", "KEY", "MODE", "NEW")
    assert before.differences(before) == ()


def test_a_secret_is_not_in_the_text_of_variables() -> None:
    """Values are."""
    assert repr(Variables({"MODE": "a"}, {"KEY": "planted"})) == "Variables(values={'MODE': 'a'})"


def test_text_of_an_application_is_shown_without_its_secrets() -> None:
    """In each form in which a response or a log may have them; a very short one hides nothing."""
    key = 'plant"ed\\ü'
    variables = Variables({"MODE": "fast"}, {"KEY": key, "PIN": "1", "NONE": ""})
    text = f"fast 1 {key} {json.dumps([key])} {[key]} {json.dumps([key])!r}"
    assert variables.hide(text) == "fast 1 … [\"…\"] ['…'] '[\"…\"]'"
