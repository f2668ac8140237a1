"""Faults of this program: a sentence for the user, and a file with the trace for its authors."""

from __future__ import annotations

import os
import platform
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from deploy.errors import InternalError, SettingsInvalid
from deploy.machine.host import cache_folder
from deploy.text import hide_secrets

_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|CREDENTIAL|SAS", re.IGNORECASE)
_SHORTEST_SECRET = 4
_LOGIN_IN_URL = re.compile(r"(?<=://)[^/\s]*@")
_QUERY_OF_URL = re.compile(r"(?<=://)([^\s?'\"]*)\?[^\s'\"]*")


def explain_fault(error: Exception) -> InternalError:
    """Write the trace of an error to a file, and return the error for the user."""
    what = f"this program has a fault: {type(error).__name__}"
    try:
        path = write_trace(error, cache_folder() / "traces", os.environ)
    except (OSError, SettingsInvalid) as refusal:  # Without a home folder there is no cache.
        return InternalError(
            what,
            on=f"no trace could be written: {refusal}",
            next="make the cache folder writable, run again, and report the trace",
        )
    return InternalError(
        what, on=str(path), next="report it with that file, after a look for what must stay private"
    )


def write_trace(error: Exception, folder: Path, environ: Mapping[str, str]) -> Path:
    """Write the trace of an error to a new file of a folder, which only this user can read.

    It has no local variable and no variable of the environment.

    Args:
        error: the error.
        folder: is created if necessary.
        environ: the process environment, whose secrets the trace must not have.

    Returns:
        The path of the file.

    Raises:
        OSError: it cannot be written.
    """
    now = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y%m%d-%H%M%S-%f}.txt"
    path.touch(mode=0o600)
    head = f"{now:%Y-%m-%d %H:%M:%S} UTC, Python {platform.python_version()} on {sys.platform}\n"
    trace = "".join(traceback.format_exception(error))
    path.write_text(head + _without_secrets(trace, environ), "utf-8", "backslashreplace")
    return path


def _without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """Return a text without logins and queries of URLs, and without the values of secrets."""
    text = _QUERY_OF_URL.sub(r"\1?***", _LOGIN_IN_URL.sub("***@", text))
    secrets = (value for name, value in environ.items() if _SECRET.search(name))
    return hide_secrets(text, (value for value in secrets if len(value) >= _SHORTEST_SECRET))
