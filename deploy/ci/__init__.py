"""The CI systems that releases run in, and what they say about the run."""
