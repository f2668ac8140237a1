"""The home folder of a user, and of one who has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.clients.home import find_home, require_home
from deploy.errors import SettingsInvalid


def test_a_user_has_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME names it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_home() == require_home("set HOME") == tmp_path


def test_a_user_without_a_home_folder_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user database may not know the number of a user in a container."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert find_home() is None
    with pytest.raises(SettingsInvalid) as caught:
        require_home("set TWINSHIP_HOME")
    assert caught.value.next == "set TWINSHIP_HOME"
