"""Models: publish a version, fetch it, and play its golden cases."""
