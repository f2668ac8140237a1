"""The tasks of Invoke: each reads its options and runs one command. `invoke --list` shows all.

This module imports nothing heavy, so that `invoke --list` stays instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from deploy.cli import output, program

if TYPE_CHECKING:
    from deploy.context import ReleaseContext

_CLONE = Path(__file__).parents[2]
# A folder without pipeline.toml stands for the application of a clone of the suite, if this is one.
HERE = (
    Path.cwd()
    if Path("pipeline.toml").is_file() or not (_CLONE / "pipeline.toml").is_file()
    else _CLONE
)
RECORDS = ".twinship/records"
# The explanations of options that several tasks have.
ENV = "environment of pipeline.toml, by default `local` or the first"
JSON = "print JSON"
MODEL = "NAME or NAME@VERSION"

program.take_over()


def _context(env: str = "") -> ReleaseContext:
    from deploy.context import ReleaseContext

    return ReleaseContext(HERE, env)


@task(help={"into": "folder of the repository, by default this one"})
@output.task_body
def init(_: Context, into: str = ".") -> None:
    """Write what a repository needs to be released; keep every file that exists."""
    from deploy.cli import commands

    commands.init(Path(into))


@task(help={"env": ENV, "json": JSON})
@output.task_body
def doctor(_: Context, env: str = "", json: bool = False) -> None:
    """Print what a release needs on this machine and what is missing; change nothing."""
    from deploy.cli import commands

    commands.doctor(_context(env), json=json)


@task(help={"env": ENV})
@output.task_body
def up(_: Context, env: str = "") -> None:
    """Install and start what a release needs on this machine."""
    from deploy.cli import commands

    commands.up(_context(env))


@task(help={"purge": "also forget the history and the local registry's images"})
@output.task_body
def down(_: Context, purge: bool = False) -> None:
    """Stop what `up` and releases started on this machine."""
    from deploy.cli import commands

    commands.down(_context(), purge=purge)


@task(
    help={
        "directory": "holds model.toml and the model's files",
        "sample": "make and publish this version of the sample model: 1 or 2",
        "new-name": "publish it even if its name is not that of pipeline.toml",
    },
    optional=["sample"],
)
@output.task_body
def publish(_: Context, directory: str = "", sample: str = "", new_name: bool = False) -> None:
    """Publish a model as a version of the store, the latest one."""
    from deploy.cli import commands

    commands.publish(_context(), directory, sample, new_name=new_name)


@task(name="list", help={"json": JSON})
@output.task_body
def list_(_: Context, json: bool = False) -> None:
    """List the published versions of the model."""
    from deploy.cli import commands

    commands.list_models(_context(), json=json)


@task(help={"version": "a published version, or `latest`"})
@output.task_body
def show(_: Context, version: str = "latest") -> None:
    """Print the manifest of a published version."""
    from deploy.cli import commands

    commands.show_model(_context(), version)


@task(
    help={
        "env": ENV,
        "model": MODEL,
        "records": "folder to write model.json to",
    }
)
@output.task_body
def fetch(_: Context, env: str = "", model: str = "", records: str = RECORDS) -> None:
    """Fetch a model into the cache, as the layer of its images."""
    from deploy.cli import commands

    commands.fetch(_context(env), model, HERE / records)


@task(
    help={
        "env": ENV,
        "records": "folder to write app.json to",
    }
)
@output.task_body
def build(_: Context, env: str = "", records: str = RECORDS) -> None:
    """Build the app image, if no machine has built these files before."""
    from deploy.cli import commands

    commands.build(_context(env), HERE / records)


@task(
    help={
        "env": ENV,
        "records": "folder with app.json and model.json; image.json is written there",
    }
)
@output.task_body
def smoke(_: Context, env: str = "", records: str = RECORDS) -> None:
    """Join app and model, run the image, play its golden cases."""
    from deploy.cli import commands

    commands.smoke(_context(env), HERE / records)


@task(
    help={
        "env": ENV,
        "records": "folder with image.json; release.json is written there",
    }
)
@output.task_body
def push(_: Context, env: str = "", records: str = RECORDS) -> None:
    """Push the joined image to the environment's registry."""
    from deploy.cli import commands

    commands.push(_context(env), HERE / records)


@task(
    help={
        "env": ENV,
        "records": "folder with release.json; rollout.json is written there",
        "json": JSON,
    }
)
@output.task_body
def deploy(_: Context, env: str = "", records: str = RECORDS, json: bool = False) -> None:
    """Roll the pushed release out, prove it, undo the rollout if it fails."""
    from deploy.cli import commands

    commands.deploy(_context(env), HERE / records, json=json)


@task(help={"env": ENV, "json": JSON})
@output.task_body
def verify(_: Context, env: str = "", json: bool = False) -> None:
    """Play the golden cases at the endpoint."""
    from deploy.cli import commands

    commands.verify(_context(env), json=json)


@task(
    help={
        "env": ENV,
        "model": MODEL,
        "dry-run": "only print what would run and why",
        "json": JSON,
    }
)
@output.task_body
def release(
    _: Context, env: str = "", model: str = "", dry_run: bool = False, json: bool = False
) -> None:
    """Release the newest code and the newest model."""
    from deploy.cli import commands

    commands.release(_context(env), model, dry_run=dry_run, json=json)


@task(
    help={
        "env": ENV,
        "to": "id of a release in `history`",
        "only": "`model` or `code`",
        "json": JSON,
    }
)
@output.task_body
def rollback(_: Context, env: str = "", to: str = "", only: str = "", json: bool = False) -> None:
    """Go back to an earlier release, or to its model or code alone."""
    from deploy.cli import commands

    commands.rollback(_context(env), to, only, json=json)


@task(
    help={
        "from": "environment whose release is promoted",
        "to": "environment that it is promoted to",
        "json": JSON,
    }
)
@output.task_body
def promote(_: Context, from_: str, to: str, json: bool = False) -> None:
    """Roll out what serves in one environment to another: the same digest, never rebuilt."""
    from deploy.cli import commands

    commands.promote(_context(to), _context(from_), json=json)


@task(name="promote-canary", help={"env": ENV, "json": JSON})
@output.task_body
def promote_canary(_: Context, env: str = "", json: bool = False) -> None:
    """Let the canary on hold take over now."""
    from deploy.cli import commands

    commands.promote_canary(_context(env), json=json)


@task(help={"env": ENV, "json": JSON})
@output.task_body
def abort(_: Context, env: str = "", json: bool = False) -> None:
    """Give up the canary on hold; the previous release continues to serve."""
    from deploy.cli import commands

    commands.abort(_context(env), json=json)


@task(
    help={
        "env": ENV,
        "records": "folder with release.json; without it, what should serve there is rendered",
    }
)
@output.task_body
def render(_: Context, env: str = "", records: str = "") -> None:
    """Print the Kubernetes objects of an environment as YAML."""
    from deploy.cli import commands

    commands.render(_context(env), records)


@task(
    help={
        "env": ENV,
        "release": "id of one attempt, to see why it failed",
        "json": JSON,
    }
)
@output.task_body
def history(_: Context, env: str = "", release: str = "", json: bool = False) -> None:
    """List all attempts: who, when, commit, model, digest, outcome."""
    from deploy.cli import commands

    commands.history(_context(env), release, json=json)


@task(
    help={
        "env": ENV,
        "check": "end with an error if fewer replicas serve than should, for a monitor",
        "json": JSON,
    }
)
@output.task_body
def status(_: Context, env: str = "", check: bool = False, json: bool = False) -> None:
    """Print what serves now, and the states of its replicas."""
    from deploy.cli import commands

    commands.status(_context(env), check=check, json=json)


@task(
    help={
        "first": "id of a release in `history`",
        "second": "id of another one",
        "env": ENV,
        "json": JSON,
    }
)
@output.task_body
def diff(_: Context, first: str, second: str, env: str = "", json: bool = False) -> None:
    """Print two releases side by side: commits, packages, model, metrics, golden cases, digests."""
    from deploy.cli import commands

    commands.diff(_context(env), first, second, json=json)


@task(
    help={
        "env": ENV,
        "release": "id of the only release in `history` whose replicas are of interest",
        "since": "how long ago: 30s, 10m, 2h, 1d; without it, the last 100 lines of each log",
        "follow": "go on with what is written from now on, until Ctrl-C",
        "json": "print JSON, one object a line",
    }
)
@output.task_body
def logs(
    _: Context,
    env: str = "",
    release: str = "",
    since: str = "",
    follow: bool = False,
    json: bool = False,
) -> None:
    """Print what replicas and proxy wrote, in order of time."""
    from deploy.cli import commands

    commands.logs(_context(env), release, since, follow=follow, json=json)


namespace = Collection(
    init,
    doctor,
    up,
    down,
    fetch,
    build,
    smoke,
    push,
    deploy,
    verify,
    release,
    promote,
    promote_canary,
    abort,
    rollback,
    history,
    status,
    logs,
    diff,
    render,
)
namespace.add_collection(Collection("model", publish, list_, show))
