"""The tasks that `invoke --list` shows; deploy/cli/tasks.py has them."""

from deploy.cli.tasks import namespace

__all__ = ["namespace"]
