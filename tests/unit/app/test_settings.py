from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings, SettingsError


def test_empty_environment_gives_the_defaults() -> None:
    """Without any variable the settings are those of the class."""
    assert Settings.from_environment({}) == Settings()


def test_variables_override() -> None:
    """Each variable sets its field."""
    settings = Settings.from_environment(
        {"APP_MODEL_DIR": "/m", "APP_PORT": "81", "APP_ACCESS_LOG": "1", "TWINSHIP_COMMIT": "abc"}
    )
    assert (settings.model_dir, settings.port, settings.access_log, settings.commit) == (
        Path("/m"),
        81,
        True,
        "abc",
    )


def test_all_faults_are_reported_at_once() -> None:
    """Every variable that is out of bounds is named."""
    with pytest.raises(
        SettingsError, match=r"APP_PORT: .*'0'; APP_SLOTS: .*'many'; APP_MAX_PIXELS"
    ):
        Settings.from_environment(
            {"APP_PORT": "0", "APP_SLOTS": "many", "APP_MAX_PIXELS": "9" * 5000}
        )
