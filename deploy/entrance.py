"""Where requests to what serves are sent, and how one is let in there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy.clients import connections

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True)
class Entrance:
    """A URL, and what a gateway before the application asks for.

    Attributes:
        url: scheme, host and port, perhaps a path; the paths of requests are appended.
        headers: sent with every request; they may hold credentials, and are never shown.
        authority: path of the CA bundle that the server's certificate is checked with; empty for the usual ones.
        certificate: paths of a client certificate and its key.
        proxy: URL of a proxy on the way; it may hold credentials, and is never shown.
        server_name: the name that the server's certificate must have, if not the URL's.
        unverified: whether any certificate will do.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    authority: str = ""
    certificate: tuple[str, str] | None = None
    proxy: str = field(default="", repr=False)
    server_name: str = ""
    unverified: bool = False

    def session(self) -> requests.Session:
        """A session that is let in here; nothing of this machine's environment is sent along."""
        import requests

        opened = requests.Session()
        opened.trust_env = False
        opened.headers.update(self.headers)
        opened.verify = not self.unverified and (self.authority or True)
        opened.cert = self.certificate
        opened.proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else {}
        if self.server_name:
            opened.mount("https://", connections.adapter(server_hostname=self.server_name))
        return opened
