"""The benchmark: what releases cost and how the application serves, next to the usual way.

`python -m bench` writes the figures as JSON, Markdown and pictures; docs/08-benchmark.md explains
them.
"""
