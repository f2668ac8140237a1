"""This machine: what a release needs on it."""
