"""Rolling a release out to a target: apply, prove, undo."""
