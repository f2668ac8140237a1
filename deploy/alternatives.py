"""The version of a model that a release can take if the one that it wants fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deploy.context import ReleaseContext
from deploy.errors import (
    FileTampered,
    FormatMismatch,
    GoldenMiss,
    ManifestInvalid,
    ModelUnknown,
    ReleaseError,
    SmokeFailed,
)
from deploy.model.manifest import LATEST
from deploy.model.versions import find_latest_version, find_other_version
from deploy.rollout.history import current

_MODEL_FAILURES = (
    ModelUnknown,
    ManifestInvalid,
    FileTampered,
    FormatMismatch,
    SmokeFailed,
    GoldenMiss,
)


@contextmanager
def suggest_model(context: ReleaseContext, version: str, task: str) -> Iterator[None]:
    """Name another version of the model in a failure that the model may have caused.

    A bad model must not keep new code from being released.

    Args:
        context: the environment.
        version: the version that is released.
        task: the task that can be run again with another version.
    """
    try:
        yield
    except _MODEL_FAILURES as error:
        other = _find_other_version(context, version)
        if other:
            is_default = context.environment == context.settings.default_environment
            env = "" if is_default else f" --env {context.environment}"
            error.next += f"; `invoke {task}{env} --model @{other}` takes model {other} instead"
        raise


def _find_other_version(context: ReleaseContext, version: str) -> str:
    """Return the version that serves, or else another one of the store; empty if there is none."""
    name = context.settings.model.name
    failed = version
    with suppress(ReleaseError):
        if version == LATEST:
            failed = find_latest_version(name, context.store) or LATEST
    with suppress(ReleaseError):
        serving = current(context.inspect_target().history())
        if serving:
            found = serving.attempt.release.image.layer.model.version
            return found if found != failed else ""
    with suppress(ReleaseError):
        return find_other_version(name, failed, context.store)
    return ""
