"""Options that connections are made with."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.clients import http_adapter


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_every_connection_is_made_with_the_options(proxy: str) -> None:
    """To the server itself, and by way of a proxy."""
    adapter: Any = http_adapter.adapter(at_most=3, blocksize=1 << 20)
    pools = adapter.proxy_manager_for(proxy) if proxy else adapter.poolmanager
    assert (pools.connection_pool_kw["blocksize"], pools.connection_pool_kw["maxsize"]) == (
        1 << 20,
        3,
    )
    pool = pools.connection_from_url("https://registry.example")
    assert pool.conn_kw["blocksize"] == 1 << 20


def test_connections_of_one_adapter_are_not_those_of_another() -> None:
    """Each has the options that it was given, and no others."""
    http_adapter.adapter(server_hostname="cluster.example")
    adapter: Any = http_adapter.adapter(blocksize=1 << 20)
    assert "server_hostname" not in adapter.poolmanager.connection_pool_kw
