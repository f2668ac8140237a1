"""Figures of the main job: what releases cost and how the application serves, each beside the usual way in the same run.

`python -m bench` writes them as JSON, Markdown and pictures; docs/08-benchmark.md tells how to read them.
"""
