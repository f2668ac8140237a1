"""The benchmark's load, under which stories are told as well."""

from __future__ import annotations

from bench.load import Answer, Load

__all__ = ["Answer", "Load"]
