"""The lines of logs on standard output: with the names of those that wrote them, or as JSON."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from deploy.cli import output, tables
from deploy.records import LogLine

log = logging.getLogger(__name__)

_CYAN, _MAGENTA, _BLUE, _YELLOW, _GREEN = "36", "35", "34", "33", "32"
_COLOURS = (_CYAN, _MAGENTA, _BLUE, _YELLOW, _GREEN)


class LogView:
    """Prints the lines of several logs.

    Args:
        json: print one JSON object a line.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._colours: dict[str, str] = {}

    def show(self, lines: Iterable[LogLine]) -> None:
        """Print all lines, as they come; say so if there are none."""
        line = None
        for line in lines:
            self._print(line)
        if line is None:
            log.info("there are no such lines")

    def _print(self, line: LogLine) -> None:
        if self._json:
            output.as_json_line(tables.log_line(line))
            return
        colour = self._colours.setdefault(line.source, _COLOURS[len(self._colours) % len(_COLOURS)])
        width = max(map(len, self._colours))
        output.log_line(f"{line.source:<{width}}", colour, tables.log_text(line))
