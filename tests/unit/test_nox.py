"""What Nox does with a stage that it runs, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The project's own sessions, without an environment to install.
NOXFILE = """
import runpy
import sys

found = runpy.run_path({path!r})
found["stage"].__globals__["install"] = lambda *_: None
"""
# A task that takes longer to end than Nox waits by itself.
INVOKE = """#!{python}
import signal, sys, time

def end(number, _):
    time.sleep(1)
    print("put back", flush=True)
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
print("waiting", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_is_told_when_nox_alone_is_told_to_stop(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As CI systems do; and Nox waits until the stage has put right what it has begun."""
    (tmp_path / "noxfile.py").write_text(
        NOXFILE.format(path=str(ROOT / "noxfile.py")), encoding="utf-8"
    )
    (tmp_path / "invoke").write_text(INVOKE.format(python=sys.executable), encoding="utf-8")
    (tmp_path / "invoke").chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", "nox", "--no-venv", "-s", "deploy"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert "waiting\n" in process.stdout
        process.send_signal(number)
        try:
            assert "put back" in process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 130
