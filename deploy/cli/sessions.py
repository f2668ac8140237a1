"""The stages of a release as sessions of Nox, for the noxfile.py of an application."""

from __future__ import annotations

import signal
import sys

import nox

STAGES = (
    "doctor",
    "up",
    "fetch",
    "build",
    "smoke",
    "push",
    "deploy",
    "verify",
    "release",
    "promote",
    "promote-canary",
    "abort",
    "rollback",
)


def register() -> None:
    """Make a session of each stage; all run in the environment that Nox itself runs in."""
    for name in STAGES:
        _register(name)


def _register(name: str) -> None:
    @nox.session(name=name, venv_backend="none")
    def run(session: nox.Session) -> None:
        # A rollout that is asked to stop restores the previous release first. Each signal that
        # ends Nox asks it to stop, and Nox waits until it has ended.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        command = (sys.executable, "-m", "deploy.cli.main", name, *session.posargs)
        session.run(*command, interrupt_timeout=2.0, terminate_timeout=None)

    run.__doc__ = f"Run the stage `twinship {name}`."
