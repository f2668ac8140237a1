"""The model of the application in examples/digits, which its author trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = "examples/digits"


def train(folder: Path, version: str, seed: int) -> None:
    """Train the example's model as its author does."""
    program = folder.parent / "training" / "train.py"
    subprocess.run(
        [sys.executable, program, "--version", version, "--seed", str(seed), folder],
        check=True,
        capture_output=True,
    )
