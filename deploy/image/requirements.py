"""The requirements of a lock file that an image's Python needs, without their markers.

Pip evaluates markers for the Python that runs it, which is that of this machine.
Sources: pip's requirements file format; the specification of dependency specifiers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import WheelsUnavailable
from deploy.platforms import kernel_name

if TYPE_CHECKING:
    from packaging.markers import Marker

# The settings name the Python as 3.N: which patch the image has is not known.
_PATCHES = range(100)
_PATCH_VARIABLES = {"python_full_version", "implementation_version"}
_KERNEL_VARIABLES = {"platform_release", "platform_version"}
_CONTINUED = re.compile(r"[ \t]*\\\r?\n[ \t]*")
_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTIONS = re.compile(r"\s+(?=--)")
_OTHER_FILE = re.compile(r"(?P<option>-r|--requirement|-c|--constraint)(?:\s+|=)?(?P<path>\S+)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def select_requirements(lock: Path, python: str, platform: str) -> str:
    """Return the lines of a lock file that are for an image, in the form that pip reads.

    Args:
        lock: the lock file.
        python: the version of the image's CPython, as 3.N.
        platform: the platform of the image.

    Raises:
        WheelsUnavailable: a line is for images of which more has to be known; or the file, or one
            that it names, cannot be read.
    """
    try:
        return "".join(f"{line}\n" for line in _select(lock, python, platform))
    # A file is missing, is no text, has a path that is none, or includes itself.
    except (OSError, ValueError, RecursionError) as error:
        raise WheelsUnavailable(
            "the lock file, or one that it names, cannot be read",
            on=str(lock),
            next="fix it, or lock again",
            detail=f"  {error}",
        ) from error


def _select(lock: Path, python: str, platform: str) -> Iterator[str]:
    for line in _logical_lines(lock.read_text(encoding="utf-8")):
        other = _OTHER_FILE.fullmatch(line)
        if other and "://" not in other["path"]:
            path = lock.parent / other["path"]
            if other["option"] in ("-r", "--requirement"):
                yield from _select(path, python, platform)
            else:
                yield f"--constraint={path.resolve()}"
        elif line.startswith("-"):
            yield line
        else:
            yield from _select_one(line, python, platform, str(lock))


def _logical_lines(text: str) -> Iterator[str]:
    for line in _CONTINUED.sub(" ", text).splitlines():
        words = _COMMENT.sub("", line).strip()
        if words:
            yield words


def _select_one(line: str, python: str, platform: str, on: str) -> Iterator[str]:
    """Yield a requirement without its marker, if the image needs it."""
    from packaging.requirements import InvalidRequirement, Requirement

    text, *options = _OPTIONS.split(line, maxsplit=1)
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        # A path, for example: pip knows more forms, and says what it cannot read.
        yield line
        return
    if requirement.marker is None:
        yield line
    elif _is_needed(requirement.marker, python, platform, on):
        requirement.marker = None
        yield " ".join((str(requirement), *options))


def _is_needed(marker: Marker, python: str, platform: str, on: str) -> bool:
    """Return whether a marker is true in the image.

    Raises:
        WheelsUnavailable: this depends on what is not known of the image.
    """
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName

    variables = set(re.findall(r"\w+", _QUOTED.sub("", str(marker))))
    if variables & _KERNEL_VARIABLES:
        raise _unknown_error(marker, "it depends on the kernel that runs the image", on)
    patches = _PATCHES if variables & _PATCH_VARIABLES else range(1)
    try:
        results = {
            marker.evaluate(_environment(f"{python}.{patch}", platform)) for patch in patches
        }
    except (UndefinedComparison, UndefinedEnvironmentName, KeyError) as error:
        raise _unknown_error(marker, f"it cannot be evaluated: {error}", on) from error
    if len(results) > 1:
        reason = f"it depends on the patch of Python {python}, and the settings name none"
        raise _unknown_error(marker, reason, on)
    return results.pop()


def _environment(python: str, platform: str) -> Mapping[str, str]:
    """Return the value of each variable in an image of that platform with that Python."""
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": kernel_name(platform),
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "extra": "",
    }


def _unknown_error(marker: Marker, reason: str, on: str) -> WheelsUnavailable:
    return WheelsUnavailable(
        "the lock file has a marker whose value in the image is not known",
        on=on,
        next="lock for the image's own Python and platform, so that this line needs no marker",
        detail=f"  {marker}\n  {reason}",
    )
