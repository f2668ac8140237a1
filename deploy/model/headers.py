"""The headers of golden cases: `${NAME}` in a value stands for a variable of the application.

Golden cases come from the model's store, from everyone who may publish a model there. So they reach
only what the tables of the settings name, in a request to the application, which has it already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from deploy.errors import SettingsInvalid
from deploy.model.manifest import GoldenCase
from deploy.variables import Variables

MAX_VALUE = 8192
"""How many characters a value may have: servers take few more."""
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")
_MAX_SHOWN = 100


def fill(case: GoldenCase, variables: Variables, tables: str = "") -> dict[str, str]:
    """Return the headers of a golden case's request, with the values of the variables they name.

    A value that is put in is not searched for names again.

    Args:
        case: the golden case.
        variables: the variables.
        tables: the tables of the settings that have them.

    Raises:
        SettingsInvalid: a header names another variable, or would get a value that no header can
            have; the value is not in the error.
    """
    return {
        header: _fill(
            value, variables.environment, f"golden case {case.name}, header {header}", tables
        )
        for header, value in case.request.headers.items()
    }


def _fill(template: str, known: Mapping[str, str], on: str, tables: str) -> str:
    names = _REFERENCE.findall(template)
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        name = unknown[:_MAX_SHOWN]
        raise SettingsInvalid(
            f"a golden case names a variable that the application does not get: {name}",
            on=on,
            next=f"add {name} to {tables}, or correct the golden case",
        )
    # Measured first: a few letters can name a long value thousands of times.
    length = len(template) + sum(len(known[name]) for name in names)
    value = _REFERENCE.sub(lambda found: known[found[1]], template) if length <= MAX_VALUE else None
    if names and (value is None or not _VALUE.fullmatch(value)):
        raise SettingsInvalid(
            f"with {', '.join(sorted(set(names)))} the header gets a value that no header can have",
            on=on,
            next=f"a header's value has at most {MAX_VALUE} characters, all of them ASCII, no line "
            "ends, and no space at its start or end; name another variable",
        )
    return template if value is None else value
