"""Parts that a test needs and this machine has not."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str, cure: str) -> NoReturn:
    """Skip a test that cannot run here; on CI, where nothing may be missing, it fails instead."""
    text = f"{what}; {cure}"
    if os.environ.get("CI"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
