"""The benchmark's copy of an application, with which stories are told as well."""

from __future__ import annotations

from bench.application import ROOT, Application, Done, free_port

__all__ = ["ROOT", "Application", "Done", "free_port"]
