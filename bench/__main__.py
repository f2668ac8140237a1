"""Measures and writes the report: `python -m bench [--quick] [--only PART ...] [--out FOLDER]`."""

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

from bench import aims, charts, cluster, meters, pushes, releases, report, rollouts, serving
from bench.application import ROOT
from bench.figures import (
    FIELDS,
    Case,
    Clustered,
    Machine,
    Measured,
    Report,
    Rolled,
    Run,
    Served,
    Transfer,
)
from bench.ground import Ground, docker, ground, packages_of
from bench.load import Load
from bench.releases import Rivals
from deploy import progress, source
from deploy.clients.docker import buildkit
from deploy.machine import host
from sample import bundle, standin

log = logging.getLogger("bench")

# A model is in the store, the cache, and for each way in the engine and in the registry.
_COPIES = 6
_REST = 4_000_000_000

PARTS = tuple(FIELDS)


@dataclass(frozen=True)
class Scale:
    """How much is measured: repetitions of each case, and the sizes of the models with theirs."""

    first: int
    unchanged: int
    code: int
    models: tuple[tuple[int, int], ...]
    pushes: int
    listing: int
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
    load=serving.Plan(clients=(1, 4), seconds=0.3, turns=1),
    rollouts=rollouts.Plan(loads=(("steady", 4, 0.1),), rest=1.0, steps=2),
    cluster=cluster.Plan(clients=4, pause=0.1, rest=1.0, steps=1, arrivals=1),
)


@dataclass(frozen=True)
class Workplace:
    """Where a run of the benchmark keeps what all its grounds share.

    Args:
        folder: everything is below it.
        sample: the sample model as its author would have it.
        packages: the cache of the locked packages.
    """

    folder: Path
    sample: Path
    packages: Path

    @classmethod
    def made(cls, folder: Path) -> Workplace:
        """Brings what comes over the network, so that no figure depends on it."""
        log.info("bringing the sample model and the locked packages")
        bundle.write("1", folder / "sample")
        return cls(folder, folder / "sample", packages_of(folder / "packages", ROOT))


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and writes its report; the exit code is 1 if an aim was missed in a full run."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("deploy").setLevel(logging.WARNING)
    logging.getLogger("sample").setLevel(logging.WARNING)
    command = " ".join(("python -m bench", *arguments))
    scale = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(
        prefix="twinship-bench-", ignore_cleanup_errors=True
    ) as folder:
        require_room(Path(folder), scale)
        measured = joined(
            measure(scale, options.only or PARTS, Path(folder), command),
            options.only,
            Path(options.out),
        )
    found = Report(measured=measured, aims=aims.judged(measured))
    write(found, Path(options.out))
    for aim in found.aims:
        log.info("%s  %s: %s", "met   " if aim.met else "MISSED", aim.promise, aim.found)
    return 0 if options.quick or all(aim.met for aim in found.aims) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure releases and the served application."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="try everything out once, in about three minutes; the figures mean little",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        default=[],
        help="leave the other parts out, or as the report has them",
    )
    parser.add_argument(
        "--out", default=str(ROOT / "docs" / "benchmark"), help="folder of the report"
    )
    return parser.parse_args(arguments)


def require_room(folder: Path, scale: Scale) -> None:
    """Ends the program if the disk cannot hold what will be made."""
    needed = _COPIES * sum(size * turns for size, turns in scale.models) + _REST
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"the benchmark needs {progress.format_size(needed)} of disk, {folder} has {progress.format_size(free)}; set TMPDIR, or use --quick"
        )


def joined(measured: Measured, parts: Sequence[str], folder: Path) -> Measured:
    """What was measured; where that was some parts only, among the others of the report in a folder, if there is one."""
    path = folder / "report.json"
    if not parts or not path.is_file():
        return measured
    return Report.from_json(path.read_bytes()).measured.with_parts_of(measured, parts)


def write(found: Report, folder: Path) -> None:
    """Writes the report as JSON, Markdown and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(
        f"{json.dumps(found.model_dump(mode='json'), indent=1)}\n", encoding="utf-8"
    )
    (folder / "report.md").write_text(report.markdown(found), encoding="utf-8")
    charts.draw(found.measured, folder)


def measure(scale: Scale, parts: Sequence[str], folder: Path, command: str) -> Measured:
    """Measures the parts that are asked for."""
    at = datetime.now(UTC)
    started = time.monotonic()
    listing = _listing(scale.listing) if "listing" in parts else ()
    cases, transfer, served, rolled = (
        _with_ground(scale, parts, folder)
        if set(parts) - {"listing", "cluster"}
        else ((), None, (), ())
    )
    clustered = _clustered(scale.cluster, folder / "on-cluster") if "cluster" in parts else None
    return Measured(
        at=at.strftime("%Y-%m-%d %H:%M UTC"),
        commit=str(source.read_commit(ROOT, ("app", "deploy", "sample", "bench"))),
        command=command,
        took=time.monotonic() - started,
        machine=machine(),
        cases=cases,
        transfer=transfer,
        listing=listing,
        served=served,
        rolled=rolled,
        cluster=clustered,
    )


def _listing(turns: int) -> tuple[float, ...]:
    log.info("invoke --list")
    command = (sys.executable, "-m", "invoke", "--list")
    meters.measured(command, ROOT, {})
    return tuple(meters.measured(command, ROOT, {}).cost.seconds for _ in range(turns))


def _with_ground(
    scale: Scale, parts: Sequence[str], folder: Path
) -> tuple[tuple[Case, ...], Transfer | None, tuple[Served, ...], tuple[Rolled, ...]]:
    """Measures what needs a ground. Every first release has a new one, and so have rollouts; the rest is done on the last of the former."""
    shared = Workplace.made(folder)
    rolled = _rolled(scale.rollouts, shared) if "load" in parts else ()
    if not set(parts) - {"listing", "load", "cluster"}:
        return (), None, (), rolled
    firsts = []
    wanted = scale.first if "releases" in parts else 0
    for turn in range(1, wanted):
        with ExitStack() as stack:
            firsts.append(_first(_rivals(stack, shared, turn), turn))
    with ExitStack() as stack:
        rivals = _rivals(stack, shared, 0)
        if wanted:
            firsts.append(_first(rivals, 0))
        size = releases.weight(rivals.ground.published())
        served = _served(rivals.ground, scale.load) if "serving" in parts else ()
        cases = (releases.firsts(firsts, size), *_changes(rivals, scale, shared)) if wanted else ()
        transfer = _transfer(rivals.ground, scale, shared) if "pushes" in parts else None
    return cases, transfer, served, rolled


def _rolled(plan: rollouts.Plan, shared: Workplace) -> tuple[Rolled, ...]:
    log.info("rollouts under load")
    with ground(shared.folder / "ground-load", shared.packages) as made:
        _publish_both(made, shared)
        return tuple(_under(made, plan, number) for number in range(len(plan.loads)))


def _clustered(plan: cluster.Plan, folder: Path) -> Clustered | None:
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        log.info("rollouts on a cluster: left out, KUBECONFIG names none")
        return None
    log.info("rollouts on a cluster")
    folder.mkdir()
    shared = Workplace.made(folder)
    with ground(folder / "ground", shared.packages) as made:
        _publish_both(made, shared)
        return cluster.measured(made, kubeconfig, plan)


def _publish_both(made: Ground, shared: Workplace) -> None:
    made.invoke("model.publish", "--directory", str(shared.sample))
    second = shared.folder / "sample-2"
    bundle.write("2", second)
    made.invoke("model.publish", "--directory", str(second))


def _under(made: Ground, plan: rollouts.Plan, number: int) -> Rolled:
    """One of the plan's loads, which finds the first model serving."""
    name, clients, pause = plan.loads[number]
    made.invoke("release", "--model", "imagenet@1")
    body = made.application.scored(rollouts.PICTURE)
    steps = rollouts.ten(rollouts.Deployer(made.application, body, made.variables))[: plan.steps]
    load = Load(
        "127.0.0.1",
        made.application.port,
        body,
        clients=clients,
        pause=pause,
        kept=rollouts.first_label,
    )
    return rollouts.under(load, "docker", name, steps, plan.rest)


def _rivals(stack: ExitStack, shared: Workplace, number: int) -> Rivals:
    made = stack.enter_context(ground(shared.folder / f"ground-{number}", shared.packages))
    made.invoke("model.publish", "--directory", str(shared.sample))
    return Rivals.on(made, shared.folder / f"ground-{number}" / "context")


def _first(rivals: Rivals, turn: int) -> tuple[Run, Run]:
    log.info("first release")
    return releases.first(rivals, turn)


def _served(on: Ground, plan: serving.Plan) -> tuple[Served, ...]:
    log.info("serving")
    releases.suite(on)
    return serving.loaded(on, plan)


def _changes(rivals: Rivals, scale: Scale, shared: Workplace) -> tuple[Case, ...]:
    """New models, smallest first; code that changes, or does not, while the first of those serves."""
    (size, turns), *larger = scale.models
    first = _model(rivals, size, turns, shared)
    log.info("code changed")
    code = releases.code(rivals, scale.code)
    log.info("nothing changed")
    unchanged = releases.unchanged(rivals, scale.unchanged)
    return (
        unchanged,
        code,
        first,
        *(_model(rivals, size, turns, shared) for size, turns in larger),
    )


def _model(rivals: Rivals, size: int, turns: int, shared: Workplace) -> Case:
    log.info("model changed, %.0f MB", size / 1e6)
    return releases.model(rivals, size, turns, shared.sample, shared.folder)


def _transfer(on: Ground, scale: Scale, shared: Workplace) -> Transfer:
    log.info("a layer to the registry")
    folder = shared.folder / "layer"
    standin.write(folder, size=scale.models[0][0], seed=0, base=shared.sample)
    return pushes.raced(on.registry, folder / "model.onnx", scale.pushes)


def machine() -> Machine:
    """This machine."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_first_of(Path("/proc/cpuinfo"), "model name"),
        cores=os.cpu_count() or 0,
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        python=platform.python_version(),
        engine=f"Docker {host.connect_engine().version}",
        docker=f"{docker('--version').strip()}, {'BuildKit' if buildkit.find_command() else 'classic builder'}",
    )


def _first_of(path: Path, field: str) -> str:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith(field)),
        platform.machine(),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
