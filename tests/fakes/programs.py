"""Programs that tests put in place of real ones: scripts in a folder."""

from __future__ import annotations

from pathlib import Path


def write_program(path: Path, body: str, interpreter: str = "/bin/sh") -> None:
    """Write a script that can be run.

    Args:
        path: the program.
        body: what it does.
        interpreter: runs it.
    """
    path.write_text(f"#!{interpreter}\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
