"""The command `twinship` of an installed suite: the same tasks as those of Invoke."""

from __future__ import annotations

from importlib.metadata import version

from deploy.cli import output
from deploy.cli.program import Program
from deploy.cli.tasks import namespace


def main() -> None:
    """Run the tasks of the command line on the application in this folder."""
    output.use_program("twinship")
    Program(name="twinship", namespace=namespace, version=version("twinship")).run()


if __name__ == "__main__":
    main()
