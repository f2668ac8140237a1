"""How connections to a server are made, where requests has no setting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter


def adapter(*, at_most: int = 10, **options: Any) -> HTTPAdapter:  # noqa: ANN401 - urllib3's own options
    """Makes every connection with those options of urllib3, to the server itself and by way of a proxy.

    Args:
        at_most: how many connections to one host are kept.
        options: what urllib3's connections take, such as `server_hostname` or `blocksize`.
    """
    from requests.adapters import HTTPAdapter

    class Connecting(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the base class's signature
            super().init_poolmanager(*args, **(options | kwargs))

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - the base class's signature
            return super().proxy_manager_for(proxy, **(options | kwargs))

    return Connecting(pool_maxsize=at_most)
