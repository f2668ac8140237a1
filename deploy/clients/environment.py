"""The variables that programs and libraries get from this process, chosen in one place.

A user has variables for work of his own: for tests, for hooks of git, for another engine. What is
run or opened for a release gets the user's variables without those that would change what it does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.clients.home import find_home

# Where git and its configuration are, and what it trusts. Others name another repository, index or
# work tree, or change what a pattern means.
_GIT_KEPT = ("GIT_CONFIG_", "GIT_EXEC_PATH", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_TEST_")
# From where pip gets packages, and how. Others change which files it gets, or where it puts them.
_PIP_OPTIONS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "cert",
    "client-cert",
    "proxy",
    "keyring-provider",
    "timeout",
    "default-timeout",
    "retries",
    "resume-retries",
    "cache-dir",
    "no-cache-dir",
    "use-feature",
    "use-deprecated",
    "no-input",
)
_ENGINE = ("DOCKER_", "BUILDX_", "BUILDKIT_")
_TESTCONTAINERS = ("TESTCONTAINERS_", "TC_", "RYUK_")
# What the library requests reads: the connection to an engine needs none of it.
_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def git_variables() -> dict[str, str]:
    """Return the variables of git, whose texts are those of the language C."""
    # One failure is known by its message only.
    return _variables_without(("GIT_",), kept=_GIT_KEPT) | {"LC_ALL": "C"}


def pip_variables() -> dict[str, str]:
    """Return the variables of pip, which reads its configuration files as well."""
    kept = (*map(_pip_variable, _PIP_OPTIONS), "PIP_CONFIG_FILE")
    return _variables_without(("PIP_",), kept=kept)


def pip_variables_without_files(configured: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of pip, which reads no configuration files then.

    Args:
        configured: the options of those files, by name; those that may not apply are left out.
    """
    from_files = {
        _pip_variable(name): value for name, value in configured.items() if name in _PIP_OPTIONS
    }
    own = _variables_without(("PIP_",), kept=tuple(map(_pip_variable, _PIP_OPTIONS)))
    # For pip an empty variable is none.
    given = {name: value for name, value in own.items() if value or not name.startswith("PIP_")}
    without_cache = {} if find_home() else {"PIP_NO_CACHE_DIR": "1"}
    return from_files | given | without_cache | {"PIP_CONFIG_FILE": os.devnull}


def _pip_variable(option: str) -> str:
    return f"PIP_{option.upper().replace('-', '_')}"


def engine_variables(named: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of Docker's programs.

    Args:
        named: the variables that name the engine and the configuration.
    """
    return _variables_without(_ENGINE, kept=("DOCKER_AUTH_CONFIG",)) | dict(named)


def library_variables(named: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the variables that the Docker SDK and testcontainers may read.

    Args:
        named: the variables that name the engine and the configuration.
        home: a home folder without the properties of testcontainers and without a netrc file.
    """
    left = _variables_without((*_ENGINE, *_TESTCONTAINERS, *_REQUESTS))
    without_proxies = {name: left[name] for name in left if name.upper() not in _PROXIES}
    own = {
        "HOME": str(home),
        # Not every machine can pull the image of the reaper.
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TESTCONTAINERS_HOST_OVERRIDE": "localhost",
    }
    return without_proxies | dict(named) | own


def _variables_without(prefixes: tuple[str, ...], kept: tuple[str, ...] = ()) -> dict[str, str]:
    """Return this process's variables, less those with a prefix, unless they have a kept one."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(kept) or not name.startswith(prefixes)
    }


@contextmanager
def replaced_variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Let this process have other variables while a library reads them, and its own afterwards."""
    own = dict(os.environ)
    _set_variables(wanted)
    try:
        yield
    finally:
        _set_variables(own)


def _set_variables(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
