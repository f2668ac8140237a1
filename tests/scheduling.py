"""The distribution of tests over processes, in groups that a session defines.

pytest-xdist has groups as well, by a mark. It puts them into node ids, in a way that pytest 9.2
does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A scheduler that runs the tests of a group in one process, in order.

    Args:
        config: the configuration of pytest.
        log: the log of pytest-xdist.
        group: returns the group of a test, by its node id.
    """

    def __init__(self, config: pytest.Config, log: Any, group: Callable[[str], str]) -> None:
        super().__init__(config, log)
        self._group = group

    def _split_scope(self, nodeid: str) -> str:
        return self._group(nodeid)
