"""The table [model] of pipeline.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from deploy.records import Name
from deploy.settings.table import Table

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
FunctionName = Annotated[str, Field(pattern=rf"^({_NAME}(\.{_NAME})*:{_NAME})?$")]


class ModelSource(Table):
    """The model that the application serves, and where its versions are published.

    `store` is a folder or the URL of an object store. `sample` names a function
    `module:function(version, directory)` that writes a first model if the store is empty.
    `account_key` and `sas` name the secrets of a store in Azure Blob that takes no identity.
    """

    name: Name
    store: str = ".twinship/store"
    mount: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_-][\w.-]*)+$")] = "/model"
    sample: FunctionName = ""
    account_key: str = ""
    sas: str = ""
