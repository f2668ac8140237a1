"""Sessions of Nox: a clean, locked environment for each thing that CI runs.

`./run nox` runs the checks, `./run nox -l` lists all sessions.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import nox

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "unit", "integration", "e2e"]

PYTHON_FILES = ("app", "bench", "deploy", "examples", "sample", "tests", "noxfile.py", "tasks.py")
STAGES = (
    "doctor",
    "up",
    "fetch",
    "build",
    "smoke",
    "push",
    "deploy",
    "verify",
    "release",
    "promote",
    "promote-canary",
    "abort",
    "rollback",
)
LOCKS = {
    "deploy": ("--group=sample",),
    "test": ("--group=test",),
    "bench": ("--group=bench",),
    "lint": ("--only-group=lint",),
    "types": ("--group=types",),
    "wheel": ("--only-group=wheel",),
}
TESTS = Path("tests").resolve()
# How many processes run a session's tests. Tests of `integration` and `e2e` mostly wait for an
# engine or a cluster, so there may be more processes than processors. Tests of one module (of one
# application in `e2e`) share what they have started, and run in one process, in order.
PROCESSES = {
    "unit": ("--numprocesses=logical", "--maxprocesses=8"),
    "integration": ("--numprocesses=5", "--dist=loadscope", "--no-loadscope-reorder"),
    "e2e": ("--numprocesses=3", "--dist=loadscope", "--no-loadscope-reorder"),
}
# What runs on a second engine as well: its release and its image store may be others.
SECOND_ENGINE = {
    "integration": (
        "tests/integration/deploy/clients/docker",
        "tests/integration/deploy/clients/oci/test_client.py",
        "tests/integration/deploy/image",
        "tests/integration/deploy/test_smoke.py",
    ),
    "e2e": ("tests/e2e/test_second_application.py",),
}
# The images that `invoke up` has made: to make them again takes minutes.
COPY_IMAGES = (
    "docker image ls --format '{{.Repository}}:{{.Tag}}' | grep -E '^twinship/(base|parts):' | "
    'xargs docker save | docker -H "$0" load'
)
MOTO = ".nox/moto"
# The emulator of Azure Blob: the store behind the stand-in for Azure, and that of the benchmark.
AZURITE = "3.35.0"
# The garbage collector finds a leak in any later test: an error in `unit`, a warning elsewhere.
LEAKS = ("-W", "default::pytest.PytestUnraisableExceptionWarning")
# The runtime of the models reports its use to its maker unless this forbids it.
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}


def install(session: nox.Session, lock: str) -> None:
    """Install exactly what a lock file names: every file is checked by its hash.

    Modules are compiled once here, so that every command starts sooner.
    """
    session.install("--require-hashes", "-r", f"locks/{lock}.txt", env={"UV_COMPILE_BYTECODE": "1"})


def install_moto(session: nox.Session) -> None:
    """Install the server of S3 for tests into an environment that no other package shares."""
    session.run("uv", "venv", "--quiet", "--allow-existing", MOTO, external=True)
    command = ("uv", "pip", "sync", "--quiet", "--python", MOTO, "--require-hashes")
    session.run(*command, "locks/moto.txt", external=True)


def install_azurite(session: nox.Session) -> None:
    """Install Azurite with npm into a session's environment; what needs it is skipped else."""
    if shutil.which("npm") is None:
        session.warn("Azurite is not installed, because npm is not")
        return
    folder = Path(session.virtualenv.location)
    package = folder / "lib" / "node_modules" / "azurite" / "package.json"
    if package.is_file() and json.loads(package.read_text(encoding="utf-8"))["version"] == AZURITE:
        return
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder))
    command = ("npm", "install", "--global", *options, f"azurite@{AZURITE}")
    session.run(*command, external=True, success_codes=range(256))


def run_with_engine(session: nox.Session, *command: str) -> None:
    """Start what a release needs on this machine, then run a command that may use the engine."""
    session.run("invoke", "up")
    denied = Path("/var/run/docker.sock").exists() and not os.access(
        "/var/run/docker.sock", os.W_OK
    )
    if denied and shutil.which("sg"):
        # `up` has added this user to the engine's group; this process started before that.
        session.run("sg", "docker", "-c", shlex.join(command), external=True, env=QUIET)
    else:
        session.run(*command, env=QUIET)


def run_on_second_engine(session: nox.Session) -> None:
    """Run a part of a session's tests on the engine that TWINSHIP_TEST_ENGINE names, if any."""
    engine = os.environ.get("TWINSHIP_TEST_ENGINE")
    if not engine:
        session.warn(
            "nothing was run on a second engine, because none is named; "
            "set TWINSHIP_TEST_ENGINE to what its DOCKER_HOST would be"
        )
        return
    session.run("sh", "-c", COPY_IMAGES, engine, external=True)
    command = ("pytest", *PROCESSES[session.name], *LEAKS, *SECOND_ENGINE[session.name])
    session.run(*command, env={**QUIET, "DOCKER_HOST": engine})


def names_tests(word: str) -> bool:
    """Return whether an argument is a file, a folder or a single test below `tests/`."""
    return TESTS in Path(word.partition("::")[0]).resolve().parents


def pytest_command(session: nox.Session, *measured: str) -> tuple[str, ...]:
    """Return the command that runs a session's tests, or those that its arguments name instead.

    Args:
        session: named as the folder of its tests.
        measured: options that make sense for all tests of the session only.
    """
    leaks = () if session.name == "unit" else LEAKS
    if any(map(names_tests, session.posargs)):
        return ("pytest", *leaks, *session.posargs)
    folder = f"tests/{session.name}"
    options = () if session.posargs else measured
    return ("pytest", *PROCESSES[session.name], *leaks, *options, folder, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting; `-- --fix` corrects what ruff can correct."""
    install(session, "lint")
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), *PYTHON_FILES)
    session.run("ruff", "format", *([] if fix else ["--check"]), *PYTHON_FILES)


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, tests included."""
    install(session, "types")
    session.run("mypy", *PYTHON_FILES)


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that need nothing but Python; all of them together measure the coverage."""
    install(session, "test")
    session.run(*pytest_command(session, "--cov", "--cov-report=term:skip-covered"), env=QUIET)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the tests of single stages against real parts."""
    install(session, "test")
    install_moto(session)
    run_with_engine(session, *pytest_command(session))
    if not session.posargs:
        run_on_second_engine(session)


@nox.session
def e2e(session: nox.Session) -> None:
    """Run whole scenarios: release, undo, roll back; those that hold a rate of requests alone."""
    install(session, "test")
    install_moto(session)
    install_azurite(session)
    run_with_engine(session, *pytest_command(session, "-m", "not load"))
    if not session.posargs:
        run_with_engine(session, "pytest", "tests/e2e", "-m", "load", *LEAKS)
        run_on_second_engine(session)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what docs/08-benchmark.md shows; `-- --quick` only tries the benchmark itself."""
    install(session, "bench")
    install_azurite(session)
    run_with_engine(session, "python", "-m", "bench", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the suite as a wheel into dist/, to be installed beside an application."""
    install(session, "wheel")
    session.run("python", "-m", "hatchling", "build", "--target", "wheel", *session.posargs)


def stage(name: str) -> None:
    """Make a session of a stage, for CI runners: a laptop's task in a clean environment."""

    @nox.session(name=name)
    def run(session: nox.Session) -> None:
        install(session, "deploy")
        # A rollout that is asked to stop restores the previous release first. Each signal that
        # ends Nox asks it to stop, and Nox waits until it has ended.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        session.run("invoke", name, *session.posargs, interrupt_timeout=2.0, terminate_timeout=None)

    run.__doc__ = f"Run the stage `invoke {name}`."


for stage_name in STAGES:
    stage(stage_name)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Resolve the dependencies again; write locks/, pyproject's constraints and the app's lock."""
    project = Path("pyproject.toml")
    text = project.read_text(encoding="utf-8")
    head, tail = re.split(
        r"(?<=constraint-dependencies = \[\n).*?(?=\])", text, maxsplit=1, flags=re.DOTALL
    )
    project.write_text(head + tail, encoding="utf-8")
    Path("uv.lock").unlink(missing_ok=True)
    session.run("uv", "lock", external=True)
    for name, groups in LOCKS.items():
        export(session, f"locks/{name}.txt", *groups)
    export(session, "locks/all.txt", "--all-groups", "--no-hashes")
    pins = [
        line
        for line in Path("locks/all.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith((" ", "#"))
    ]
    Path("locks/all.txt").unlink()
    project.write_text(
        head + "".join(f"    {toml_string(pin)},\n" for pin in pins) + tail, encoding="utf-8"
    )
    export(session, "app/requirements.txt", "--only-group=app")
    resolve_alone(session, "moto")


def resolve_alone(session: nox.Session, name: str) -> None:
    """Write the lock of a test's server, which shares no environment and no version with others."""
    session.run(
        "uv",
        "pip",
        "compile",
        "-q",
        "--no-config",
        "--universal",
        "--python-version=3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--upgrade",
        "-o",
        f"locks/{name}.txt",
        f"locks/{name}.in",
        external=True,
    )


def export(session: nox.Session, target: str, *options: str) -> None:
    """Write part of the resolution in the form that both pip and uv read, naming no index."""
    session.run(
        "uv",
        "export",
        "-q",
        "--frozen",
        "--no-header",
        "--no-annotate",
        "--no-emit-project",
        "-o",
        target,
        *options,
        external=True,
    )


def toml_string(text: str) -> str:
    """Return the text as a TOML string."""
    return f"'{text}'" if '"' in text else f'"{text}"'
