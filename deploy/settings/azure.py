"""The table [azure] of pipeline.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from deploy.settings.table import Table

if TYPE_CHECKING:
    from deploy.clients.azure.sources import Account

Id = Annotated[str, Field(pattern=r"^[\w.-]*$", max_length=256)]


class Azure(Table):
    """The identity on Azure. All keys are optional, and none holds a secret.

    `client_secret` names an environment variable. `managed_identity` allows the identity of the
    machine that the suite runs on.
    """

    tenant: Id = ""
    client_id: Id = ""
    client_secret: Annotated[str, Field(pattern=r"^\w*$")] = ""
    subscription: Id = ""
    cloud: Id = ""
    managed_identity: bool = False

    @property
    def account(self) -> Account:
        """What the login needs of these keys."""
        from deploy.clients.azure.sources import Account

        return Account(**self.model_dump())
