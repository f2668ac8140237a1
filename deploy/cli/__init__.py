"""The command line: what tasks run, what people and scripts read."""
