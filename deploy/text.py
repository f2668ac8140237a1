"""Text from outside, in a form in which it can be shown.

A model, a registry, an engine, a cluster and an application choose some of the text that is
printed. It reaches terminals, which act on control characters, and the logs of CI systems, which
act on lines such as `::error::` and `##vso[task.setvariable]`. The output of tasks passes through
this module, so that no stage has to think of it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable

# GitHub reads `::command::` at the start of a line, after any spaces, and `##[command]` anywhere;
# Azure Pipelines and TeamCity read `##vso[command]` and `##teamcity[command]` anywhere.
_LINE_COMMAND = re.compile(r"^([^\S\n]*:)(?=:.*::)", re.MULTILINE)
_COMMAND = re.compile(r"#(?=#\w*\[)")
_USER = re.compile(r"(?<=://)[^\s/?#\"<>]*@")
# A query may have each punctuation mark; at its end, they are those of the text around it.
_QUERY = re.compile(r"(://[^\s?#\"<>]*)[?#][^\s\"<>]*?(?=[)\]'.,:;]*(?:[\s\"<>]|$))")
# Control, format, private and unassigned characters, halves of characters, and line separators.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def escape(text: str) -> str:
    r"""Return text that neither a terminal nor a CI system acts on; its lines stay lines.

    A character that is not shown becomes an escape such as `\x1b`, and the mark of a command of a
    CI system is broken by a space. The logins in URLs are left out.
    """
    lines = text.replace("\r\n", "\n")
    shown = "".join(letter if _is_shown(letter) else _escape_letter(letter) for letter in lines)
    return _COMMAND.sub("# ", _LINE_COMMAND.sub(r"\1 ", hide_users(shown)))


def escape_line(text: str) -> str:
    """Return text as `escape` does, on one line."""
    return escape(text.strip("\r\n").replace("\r\n", "\n").replace("\n", "\\n"))


def escape_json(document: str) -> str:
    """Return the same JSON document in letters that neither a terminal nor a CI system acts on."""
    shown = "".join(letter if _is_shown(letter) else _escape_unit(letter) for letter in document)
    return shown.replace("##", "\\u0023\\u0023")


def show_undecodable(name: str) -> str:
    r"""Return the name of a file with escapes such as `\xe9`, if it is not UTF-8; else nothing."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode(errors="backslashreplace")
    return ""


def hide_users(text: str) -> str:
    """Return text without the users and passwords in its URLs."""
    return _USER.sub("", text)


def hide_queries(text: str) -> str:
    """Return text without users, passwords, queries and fragments in its URLs."""
    return _QUERY.sub(r"\1", hide_users(text))


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return text without any of the secrets; an empty one is none."""
    # One secret may be a part of another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _is_shown(letter: str) -> bool:
    return letter in "\n\t" or unicodedata.category(letter) not in _UNSHOWN


def _escape_letter(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _escape_unit(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
