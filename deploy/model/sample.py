"""The sample model, which an application may bring so that a first release needs no model.

The settings name a function `module:function(version, directory)` that writes the files of a model.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.clients.stores.protocol import Store
from deploy.errors import ModelUnknown, SampleUnavailable, SettingsInvalid
from deploy.model.manifest import LATEST
from deploy.model.publish import publish_model
from deploy.model.versions import find_latest_version, resolve_version
from deploy.records import Model
from deploy.settings.model import ModelSource

log = logging.getLogger(__name__)

FIRST = "1"


def resolve(source: ModelSource, version: str, store: Store, directory: Path) -> Model:
    """Return a published version; publish the sample first if the store is empty.

    Args:
        source: the model's settings.
        version: a version, or `latest`.
        store: the model store.
        directory: the folder of pipeline.toml, from which the sample's module is imported.

    Raises:
        ModelUnknown: the store has no such version.
        SampleUnavailable: the sample could not be made.
    """
    try:
        return resolve_version(source.name, version, store)
    except ModelUnknown:
        if not fills_store(source, version, store):
            raise
    log.info("the store is empty: publishing the sample model")
    return publish(source, FIRST, store, directory)


def fills_store(source: ModelSource, version: str, store: Store) -> bool:
    """Return whether a request for that version publishes the sample, as the store is empty."""
    is_first = version in (LATEST, FIRST)
    return bool(source.sample) and is_first and find_latest_version(source.name, store) is None


def publish(source: ModelSource, version: str, store: Store, directory: Path) -> Model:
    """Make a version of the sample model and publish it.

    Args:
        source: the model's settings, which name the sample.
        version: the version to make.
        store: the model store.
        directory: the folder of pipeline.toml, from which the sample's module is imported.

    Raises:
        SampleUnavailable: the settings name no sample, or it could not be made.
        VersionExists: the store has another model of that version.
    """
    if not source.sample:
        raise SampleUnavailable(
            "this application has no sample model",
            on="[model] sample",
            next="publish a model: `invoke model.publish --directory DIR`",
        )
    write = _import_function(source.sample, directory)
    with TemporaryDirectory() as folder:
        try:
            write(version, Path(folder))
        except (RuntimeError, ValueError) as error:
            raise SampleUnavailable(
                "the sample model could not be made",
                on=f"{source.sample}, version {version}",
                next="see the message, then run again",
                detail=f"  {error}",
            ) from error
        return publish_model(Path(folder), store)


def _import_function(name: str, directory: Path) -> Callable[[str, Path], None]:
    module, _, function = name.partition(":")
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    try:
        found: Callable[[str, Path], None] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingsInvalid(
            f"the sample cannot be imported: {error}",
            on="[model] sample",
            next="name it as module:function",
        ) from error
    return found
