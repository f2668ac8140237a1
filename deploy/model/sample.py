"""The sample model, which an application may bring so that a first release needs no model.

The settings name a function `module:function(version, directory)` that writes the files of a model.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

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
        SettingsInvalid: the settings name something else than a function of the application.
        ManifestInvalid: the sample has another name than the model of the settings.
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
        except Exception as error:  # The function is the application's, and may raise anything.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SampleUnavailable(
                "the sample model could not be made",
                on=f"{source.sample}, version {version}",
                next="see the message, then run again",
                detail=f"  {type(error).__name__}: {error}",
            ) from error
        return publish_model(Path(folder), store, name=source.name)


def _import_function(name: str, directory: Path) -> Callable[[str, Path], None]:
    module, _, function = name.partition(":")
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    _require_own_module(module.partition(".")[0], directory)
    try:
        found = getattr(import_module(module), function)
        # Another function might do anything with these arguments.
        inspect.signature(found).bind(FIRST, directory)
    except Exception as error:  # A module may raise anything while it is imported.
        raise _settings_error(
            f"the sample cannot be imported or called: {type(error).__name__}: {error}"
        ) from error
    return cast("Callable[[str, Path], None]", found)


def _require_own_module(module: str, directory: Path) -> None:
    """Refuse a module that is not in the folder of the application, without importing it."""
    try:
        found = find_spec(module)
    except ValueError:  # The program that runs may have no specification.
        found = None
    if found is None:
        raise _settings_error(f"there is no module {module!r}")
    places = list(found.submodule_search_locations or ())
    # The origin of a module of Python itself is a word, such as "frozen".
    if found.has_location and found.origin:
        places.append(found.origin)
    if not any(Path(place).resolve().is_relative_to(directory.resolve()) for place in places):
        raise _settings_error(f"the module {module!r} is not one of the application's folder")


def _settings_error(what: str) -> SettingsInvalid:
    return SettingsInvalid(
        what,
        on="[model] sample",
        next="name a function of the application's folder as module:function; "
        "it gets a version and a directory",
    )
