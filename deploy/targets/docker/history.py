"""An environment's history on a Docker host: two files for each attempt, in the proxy's volume."""

from __future__ import annotations

from typing import TypeVar

from deploy.records import Attempt, Ending, Record, Rollout
from deploy.targets.docker.haproxy import STATE_FOLDER
from deploy.targets.docker.proxy_container import ProxyContainer
from deploy.targets.docker.state import DockerState

_Record = TypeVar("_Record", bound=Record)

_BEGIN = "-begin.json"
_END = "-end.json"


class History:
    """The attempts of one environment: a file for the beginning of each, and one for its end.

    The volume can be read and written through the proxy's container alone.

    Args:
        state: finds the proxy's container.
        proxy_container: makes it where it is missing, before something is written.
    """

    def __init__(self, state: DockerState, proxy_container: ProxyContainer) -> None:
        self._state = state
        self._proxy_container = proxy_container

    def read(self) -> tuple[Rollout, ...]:
        """Return all attempts, oldest first; a file that a killed engine left half is skipped."""
        files = self._files()
        endings = _parse_all(Ending, _END, files)
        return tuple(
            Rollout(attempt=attempt, ending=endings.get(number))
            for number, attempt in sorted(_parse_all(Attempt, _BEGIN, files).items())
        )

    def begin(self, attempt: Attempt) -> None:
        """Write down that an attempt begins."""
        self._write(attempt, _BEGIN, attempt)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Write down how an attempt ended."""
        self._write(attempt, _END, ending)

    def _files(self) -> dict[str, bytes]:
        proxy = self._state.proxy()
        return (self._state.engine.files(proxy.id, STATE_FOLDER) or {}) if proxy else {}

    def _write(self, attempt: Attempt, suffix: str, record: Record) -> None:
        self._state.engine.put_file(
            self._proxy_container.ensure().container,
            f"{STATE_FOLDER}/{attempt.id:06}{suffix}",
            record.to_json().encode(),
        )


def _parse_all(kind: type[_Record], suffix: str, files: dict[str, bytes]) -> dict[str, _Record]:
    """Return the records of all files with that suffix, by the attempt's six digits."""
    parsed = {
        name[:6]: kind.from_cache(data) for name, data in files.items() if name.endswith(suffix)
    }
    return {number: record for number, record in parsed.items() if record}
