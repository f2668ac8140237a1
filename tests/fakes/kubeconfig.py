"""Kubeconfig files for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

TOKEN = "open-sesame"


def kubeconfig(
    *names: str, current: str = "", server: str = "https://api.example", **user: Any
) -> dict[str, Any]:
    """Return a kubeconfig with a context, a cluster and a user of each name."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
        "clusters": [{"name": name, "cluster": {"server": server}} for name in names],
        "users": [{"name": name, "user": user or {"token": f"{TOKEN}-{name}"}} for name in names],
    }


def write_yaml(path: Path, content: object) -> str:
    """Write a YAML file and return its path."""
    path.write_text(
        content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8"
    )
    return str(path)


def write_login_program(path: Path, *lines: str) -> str:
    """Write a login program, a shell script of those lines, and return its path."""
    path.write_text("\n".join(("#!/bin/sh", *lines, "")), encoding="utf-8")
    path.chmod(0o700)
    return str(path)


def exec_user(command: str, *arguments: str) -> dict[str, Any]:
    """Return the user of a kubeconfig who logs in by a program."""
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": command,
            "args": list(arguments),
            "env": None,
        }
    }


def credential_lines(**status: str) -> tuple[str, ...]:
    """Return the lines of a login program that prints those credentials."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }
    return ("cat <<END", json.dumps(credential), "END")
