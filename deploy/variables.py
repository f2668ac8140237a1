"""The variables of a release: what its replicas find in their environment, besides the image's own.

Settings give the values of some, and name the secrets that others get. A value may be shown. A
secret is in no record, label, log, message or `repr`, and neither is a hash of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.text import hide_secrets

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""The name of a variable (POSIX.1-2024, Base Definitions, 3.216 "Name")."""
RESERVED = "TWINSHIP_"
"""How the names of variables begin that a joined image sets, and that override settings."""
_SHORTEST = 4


@dataclass(frozen=True)
class Variables:
    """Variables by name; no name is in both tables.

    Attributes:
        values: those that may be shown.
        secrets: those that may not.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """All of them, as a process gets them."""
        return {**self.values, **self.secrets}

    def hide(self, text: str) -> str:
        """Return text of an application, such as a response or a log, without the secrets.

        Those of one to three characters stay: without them the rest could not be read, and would
        show what they are.
        """
        secrets = (value for value in self.secrets.values() if len(value) >= _SHORTEST)
        return hide_secrets(text, {form for secret in secrets for form in _forms(secret)})

    def differences(self, other: Variables) -> tuple[str, ...]:
        """Return the names of the variables that a process would find changed, sorted."""
        mine = self.environment
        theirs = other.environment
        return tuple(
            sorted(
                name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)
            )
        )


def _forms(secret: str) -> set[str]:
    """Return how a text may have a secret: as it is, in JSON, or as Python shows it."""
    in_json = json.dumps(secret)[1:-1]
    return {secret, in_json, repr(secret)[1:-1], repr(in_json)[1:-1]}


NO_VARIABLES = Variables()
"""For an application that gets none."""
