"""The program of the benchmark: `python -m bench [--quick] [--only PART ...] [--out FOLDER]`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import (
    aims,
    azurite,
    charts,
    cluster,
    downloads,
    first_token,
    meters,
    pushes,
    releases,
    report,
    rollouts,
    serving,
)
from bench.application import ROOT
from bench.figures import (
    FIELDS,
    Case,
    Clustered,
    Machine,
    Measured,
    OnAzure,
    Report,
    Rolled,
    Run,
    Served,
    Transfer,
)
from bench.load import Load
from bench.releases import Contenders
from bench.sandbox import Sandbox, docker, download_packages, sandbox
from deploy import progress
from deploy.clients.docker import buildkit
from deploy.machine import host
from deploy.source.files import read_states
from deploy.source.patterns import Selection, parse_pattern
from deploy.source.revision import read_commit
from sample import bundle, standin

log = logging.getLogger("bench")

# A model is in the store and in the cache, and for both contenders in engine and registry.
_MODEL_COPIES = 6
_OTHER_BYTES = 4_000_000_000

PARTS = tuple(FIELDS)
# Rollouts on a cluster have a sandbox of their own.
_WITHOUT_SANDBOX = {"azure", "cluster", "listing"}


@dataclass(frozen=True)
class Scale:
    """How much is measured: repetitions of each case, and the sizes of the models with theirs.

    `download` is the size of what is downloaded from Azure's store, and its repetitions.
    """

    first: int
    unchanged: int
    code: int
    models: tuple[tuple[int, int], ...]
    pushes: int
    listing: int
    download: tuple[int, int]
    load: serving.Plan
    rollouts: rollouts.Plan
    cluster: cluster.Plan


FULL = Scale(
    first=2,
    unchanged=7,
    code=5,
    models=((250_000_000, 5), (1_000_000_000, 2)),
    pushes=5,
    listing=9,
    download=(230_000_000, 5),
    load=serving.Plan(clients=(1, 4, 16), seconds=2.5, turns=3),
    rollouts=rollouts.Plan(loads=(("steady", 4, 0.1), ("all it can", 8, 0.0)), rest=10.0, steps=10),
    cluster=cluster.Plan(clients=6, pause=0.1, rest=10.0, steps=10, arrivals=3),
)
QUICK = Scale(
    first=1,
    unchanged=1,
    code=1,
    models=((30_000_000, 1),),
    pushes=1,
    listing=1,
    download=(30_000_000, 1),
    load=serving.Plan(clients=(1, 4), seconds=0.3, turns=1),
    rollouts=rollouts.Plan(loads=(("steady", 4, 0.1),), rest=1.0, steps=2),
    cluster=cluster.Plan(clients=4, pause=0.1, rest=1.0, steps=1, arrivals=1),
)


@dataclass(frozen=True)
class SharedInputs:
    """The inputs that all sandboxes of a run share.

    Args:
        folder: the folder of the run.
        sample: the author's directory of the sample model.
        packages: the cache of the locked packages.
    """

    folder: Path
    sample: Path
    packages: Path

    @classmethod
    def create(cls, folder: Path) -> SharedInputs:
        """Download the inputs, so that no figure depends on the network."""
        log.info("downloading the sample model and the locked packages")
        bundle.write("1", folder / "sample")
        return cls(folder, folder / "sample", download_packages(folder / "packages", ROOT))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and write its report.

    Returns:
        The exit code: 1 if a full run missed an aim, or else 0.
    """
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("deploy").setLevel(logging.WARNING)
    logging.getLogger("sample").setLevel(logging.WARNING)
    command = " ".join(("python -m bench", *arguments))
    scale = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(
        prefix="twinship-bench-", ignore_cleanup_errors=True
    ) as folder:
        require_disk_space(Path(folder), scale)
        measured = merge_report(
            measure(scale, options.only or PARTS, Path(folder), command),
            options.only,
            Path(options.out),
        )
    result = Report(measured=measured, aims=aims.judge(measured))
    write(result, Path(options.out))
    for aim in result.aims:
        log.info("%s  %s: %s", "met   " if aim.met else "MISSED", aim.promise, aim.found)
    return 0 if options.quick or all(aim.met for aim in result.aims) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure releases and the served application."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run each part once, in about three minutes; the figures mean little",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        default=[],
        help="leave out the other parts, or keep those of the report",
    )
    parser.add_argument(
        "--out", default=str(ROOT / "docs" / "benchmark"), help="folder of the report"
    )
    return parser.parse_args(arguments)


def require_disk_space(folder: Path, scale: Scale) -> None:
    """End the program if the disk has too little space for the run."""
    needed = _MODEL_COPIES * sum(size * turns for size, turns in scale.models) + _OTHER_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"the benchmark needs {progress.format_size(needed)} of disk, "
            f"{folder} has {progress.format_size(free)}; set TMPDIR, or use --quick"
        )


def merge_report(measured: Measured, parts: Sequence[str], folder: Path) -> Measured:
    """Return the figures; if only some parts were measured, merge them into the report there."""
    path = folder / "report.json"
    if not parts or not path.is_file():
        return measured
    return Report.from_json(path.read_bytes()).measured.with_parts_of(measured, parts)


def write(result: Report, folder: Path) -> None:
    """Write the report as JSON, Markdown and charts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(
        f"{json.dumps(result.model_dump(mode='json'), indent=1)}\n", encoding="utf-8"
    )
    (folder / "report.md").write_text(report.markdown(result), encoding="utf-8")
    charts.draw(result.measured, folder)


def _read_commit() -> str:
    """Return the commit of what is measured."""
    patterns = ("app/**", "deploy/**", "sample/**", "bench/**")
    selection = Selection(tuple(map(parse_pattern, patterns)))
    return str(read_commit(ROOT, selection, read_states(ROOT, selection)))


def measure(scale: Scale, parts: Sequence[str], folder: Path, command: str) -> Measured:
    """Measure the given parts."""
    at = datetime.now(UTC)
    started = time.monotonic()
    listing = _listing(scale.listing) if "listing" in parts else ()
    azure = _azure(*scale.download, folder / "azure") if "azure" in parts else None
    cases, transfer, served, rolled = (
        _measure_in_sandboxes(scale, parts, folder)
        if set(parts) - _WITHOUT_SANDBOX
        else ((), None, (), ())
    )
    clustered = _clustered(scale.cluster, folder / "on-cluster") if "cluster" in parts else None
    return Measured(
        at=at.strftime("%Y-%m-%d %H:%M UTC"),
        commit=_read_commit(),
        command=command,
        took=time.monotonic() - started,
        machine=machine(),
        cases=cases,
        transfer=transfer,
        listing=listing,
        served=served,
        rolled=rolled,
        cluster=clustered,
        azure=azure,
    )


def _listing(turns: int) -> tuple[float, ...]:
    log.info("invoke --list")
    command = (sys.executable, "-m", "invoke", "--list")
    meters.measure(command, ROOT, {})
    return tuple(meters.measure(command, ROOT, {}).cost.seconds for _ in range(turns))


def _azure(size: int, turns: int, folder: Path) -> OnAzure:
    log.info("the first token on Azure")
    first_token.measure()
    tokens = tuple(first_token.measure() for _ in range(turns))
    if not azurite.is_installed():
        log.info("a download from Azurite: left out, as it is not installed; npm installs it")
        return OnAzure(tokens=tokens, download=None)
    log.info("a download from Azurite")
    return OnAzure(tokens=tokens, download=downloads.measure(folder, size, turns))


def _measure_in_sandboxes(
    scale: Scale, parts: Sequence[str], folder: Path
) -> tuple[tuple[Case, ...], Transfer | None, tuple[Served, ...], tuple[Rolled, ...]]:
    """Measure the parts that need a sandbox.

    Each first release has a new one, and so have the rollouts; the rest uses the last of the
    former.
    """
    shared = SharedInputs.create(folder)
    rolled = _rolled(scale.rollouts, shared) if "load" in parts else ()
    if not set(parts) - _WITHOUT_SANDBOX - {"load"}:
        return (), None, (), rolled
    firsts = []
    count = scale.first if "releases" in parts else 0
    for turn in range(1, count):
        with ExitStack() as stack:
            firsts.append(_first(_contenders(stack, shared, turn), turn))
    with ExitStack() as stack:
        contenders = _contenders(stack, shared, 0)
        if count:
            firsts.append(_first(contenders, 0))
        size = releases.model_size(contenders.sandbox.model_manifest())
        served = _served(contenders.sandbox, scale.load) if "serving" in parts else ()
        cases = (
            (releases.first_case(firsts, size), *_changes(contenders, scale, shared))
            if count
            else ()
        )
        transfer = _transfer(contenders.sandbox, scale, shared) if "pushes" in parts else None
    return cases, transfer, served, rolled


def _rolled(plan: rollouts.Plan, shared: SharedInputs) -> tuple[Rolled, ...]:
    log.info("rollouts under load")
    with sandbox(shared.folder / "sandbox-load", shared.packages) as box:
        _publish_both(box, shared)
        return tuple(_under_load(box, plan, number) for number in range(len(plan.loads)))


def _clustered(plan: cluster.Plan, folder: Path) -> Clustered | None:
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        log.info("rollouts on a cluster: left out, as KUBECONFIG is not set")
        return None
    log.info("rollouts on a cluster")
    folder.mkdir()
    shared = SharedInputs.create(folder)
    with sandbox(folder / "sandbox", shared.packages) as box:
        _publish_both(box, shared)
        return cluster.measure(box, kubeconfig, plan)


def _publish_both(box: Sandbox, shared: SharedInputs) -> None:
    box.invoke("model.publish", "--directory", str(shared.sample))
    second = shared.folder / "sample-2"
    bundle.write("2", second)
    box.invoke("model.publish", "--directory", str(second))


def _under_load(box: Sandbox, plan: rollouts.Plan, number: int) -> Rolled:
    """Measure one of the plan's loads, which starts with the first model in service."""
    name, clients, pause = plan.loads[number]
    box.invoke("release", "--model", "imagenet@1")
    body = box.application.score_request(rollouts.PICTURE)
    steps = rollouts.ten_rollouts(rollouts.Deployer(box.application, body, box.variables))[
        : plan.steps
    ]
    load = Load(
        "127.0.0.1",
        box.application.port,
        body,
        clients=clients,
        pause=pause,
        extractor=rollouts.first_label,
    )
    return rollouts.measure(load, "docker", name, steps, plan.rest)


def _contenders(stack: ExitStack, shared: SharedInputs, number: int) -> Contenders:
    box = stack.enter_context(sandbox(shared.folder / f"sandbox-{number}", shared.packages))
    box.invoke("model.publish", "--directory", str(shared.sample))
    return Contenders.create(box, shared.folder / f"sandbox-{number}" / "context")


def _first(contenders: Contenders, turn: int) -> tuple[Run, Run]:
    log.info("first release")
    return releases.measure_first(contenders, turn)


def _served(box: Sandbox, plan: serving.Plan) -> tuple[Served, ...]:
    log.info("serving")
    releases.release_by_suite(box)
    return serving.measure(box, plan)


def _changes(contenders: Contenders, scale: Scale, shared: SharedInputs) -> tuple[Case, ...]:
    """Measure new models, smallest first, and changed and unchanged code on the first of them."""
    (size, turns), *larger = scale.models
    first = _model(contenders, size, turns, shared)
    log.info("code changed")
    code = releases.measure_code(contenders, scale.code)
    log.info("nothing changed")
    unchanged = releases.measure_unchanged(contenders, scale.unchanged)
    return (
        unchanged,
        code,
        first,
        *(_model(contenders, size, turns, shared) for size, turns in larger),
    )


def _model(contenders: Contenders, size: int, turns: int, shared: SharedInputs) -> Case:
    log.info("model changed, %.0f MB", size / 1e6)
    return releases.measure_model(contenders, size, turns, shared.sample, shared.folder)


def _transfer(box: Sandbox, scale: Scale, shared: SharedInputs) -> Transfer:
    log.info("a layer to the registry")
    folder = shared.folder / "layer"
    standin.write(folder, size=scale.models[0][0], seed=0, base=shared.sample)
    return pushes.measure(box.registry, folder / "model.onnx", scale.pushes)


def machine() -> Machine:
    """Return the description of this machine."""
    engine = host.connect_engine()
    builder = "BuildKit" if buildkit.find_command() else "classic builder"
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_first_value(Path("/proc/cpuinfo"), "model name"),
        cores=os.cpu_count() or 0,
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        python=platform.python_version(),
        engine=f"{engine.product} {engine.version}",
        docker=f"{docker('--version').strip()}, {builder}",
    )


def _first_value(path: Path, field: str) -> str:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith(field)),
        platform.machine(),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
