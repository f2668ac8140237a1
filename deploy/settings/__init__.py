"""`pipeline.toml` and its overrides as frozen values."""
