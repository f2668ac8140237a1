"""The contract of every container engine, fake or real."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from deploy.clients.docker.protocol import Container, Engine, Limits, Spec
from deploy.errors import BuildFailed, EngineFailed, PortTaken, RegistryNotFound
from tests.fakes.engine import Script

ImageOf = Callable[[Script], tuple[str, tuple[str, ...]]]
_TIMEOUT = 60
# The output of a script that handles signals. Earlier signals are lost, because the first process
# of a container has no default handlers.
UP = "up"


def wait_until(reached: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + _TIMEOUT
    while not reached():
        assert time.monotonic() < deadline, f"not within {_TIMEOUT} s: {what}"
        time.sleep(0.05)


def pack_context(files: dict[str, str]) -> io.BytesIO:
    """Pack files into a build context."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    context.seek(0)
    return context


class EngineContract:
    """The contract of container engines. Subclasses give the fixtures.

    Every object that a test creates has `labels`, and a name that starts with `prefix`.
    """

    @pytest.fixture
    def engine(self) -> Engine:
        """Return the engine."""
        raise NotImplementedError

    @pytest.fixture
    def prefix(self) -> str:
        """Return a prefix that no other name on the engine has."""
        raise NotImplementedError

    @pytest.fixture
    def image_of(self) -> ImageOf:
        """Return a function that gives the image and the command of a script."""
        raise NotImplementedError

    @pytest.fixture
    def port(self) -> int:
        """Return a free port of this machine."""
        raise NotImplementedError

    @pytest.fixture
    def labels(self, prefix: str) -> dict[str, str]:
        """Return the labels of every object that a test creates."""
        return {"dev.twinship.test": prefix}

    @pytest.fixture
    def spec(self, prefix: str, labels: dict[str, str], image_of: ImageOf) -> Callable[..., Spec]:
        """Return a function that makes specifications from a suffix, a script and options."""

        def made(ending: str = "one", script: Script | None = None, **more: Any) -> Spec:
            image, command = image_of(script or Script(on_signal={"SIGTERM": 0}))
            more = {"image": image, "command": command, **more}
            return Spec(name=f"{prefix}-{ending}", labels=labels | more.pop("labelled", {}), **more)

        return made

    @pytest.fixture
    def start_handler(self, engine: Engine, spec: Callable[..., Spec]) -> Callable[..., str]:
        """Return a function that starts a container which ends with a code at a signal."""

        def start(signal: str, code: int, **more: Any) -> str:
            made = engine.create(spec(script=Script(says=UP, on_signal={signal: code}), **more))
            engine.start(made.id)
            wait_until(lambda: UP in engine.logs(made.id, 1), "it handles signals")
            return made.id

        return start

    @pytest.fixture
    def state_of(self, engine: Engine, labels: dict[str, str]) -> Callable[[str], Container]:
        """Return a function that gives the present state of a container."""
        return lambda container: next(
            found for found in engine.containers(labels) if found.id == container
        )

    # --- a container's life

    def test_a_container_is_made_without_being_started(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """Creating and starting are two steps, so that files can be written in between."""
        made = engine.create(spec())
        assert (made.name, made.status, made.running) == (spec().name, "created", False)

    def test_a_started_container_runs_until_it_is_stopped(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """A stopped container still exists, with the exit code of its process."""
        made = start_handler("SIGTERM", 7)
        assert state_of(made).running
        engine.stop(made, 10)
        assert (state_of(made).status, state_of(made).exit_code) == ("exited", 7)

    def test_a_container_that_ignores_the_signal_is_killed(
        self, engine: Engine, spec: Callable[..., Spec], state_of: Callable[[str], Container]
    ) -> None:
        """The kill comes after the grace period."""
        made = engine.create(spec(script=Script()))
        engine.start(made.id)
        engine.stop(made.id, 1)
        assert (state_of(made.id).running, state_of(made.id).exit_code) == (False, 137)

    def test_stopping_and_removing_a_missing_container_is_no_error(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str
    ) -> None:
        """A later run can repeat both, without knowledge of the run before."""
        made = engine.create(spec())
        engine.stop(made.id, 1)
        engine.remove(made.id)
        engine.remove(made.id)
        engine.stop(made.id, 1)
        engine.remove(f"{prefix}-never")

    def test_a_running_container_can_be_removed(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """Its process is killed."""
        made = engine.create(spec())
        engine.start(made.id)
        engine.remove(made.id)
        assert engine.containers(labels) == []

    def test_starting_a_running_container_changes_nothing(
        self, engine: Engine, spec: Callable[..., Spec], state_of: Callable[[str], Container]
    ) -> None:
        """A run that continues another one can start a container again."""
        made = engine.create(spec())
        engine.start(made.id)
        engine.start(made.id)
        assert (state_of(made.id).running, state_of(made.id).restarts) == (True, 0)

    def test_a_container_shows_when_its_process_started(
        self,
        engine: Engine,
        spec: Callable[..., Spec],
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """A restart is another start; a container that was only created has none."""
        assert engine.create(spec("created")).started is None
        made = start_handler("SIGTERM", 5, restart=True)
        first = state_of(made).started
        assert first is not None
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        wait_until(lambda: state_of(made).restarts == 1, "it is started again")
        wait_until(lambda: (state_of(made).started or first) > first, "it started later")

    def test_a_container_that_exceeds_its_memory_is_killed_and_shows_it(
        self, engine: Engine, spec: Callable[..., Spec], state_of: Callable[[str], Container]
    ) -> None:
        """A container within its limit runs on."""
        script = Script(needs=64_000_000, says=UP)
        small, large = (
            engine.create(spec(ending, script=script, limits=Limits(memory=memory)))
            for ending, memory in (("small", 32_000_000), ("large", 320_000_000))
        )
        engine.start(small.id)
        engine.start(large.id)
        wait_until(lambda: state_of(small.id).status == "exited", "it is killed")
        wait_until(lambda: UP in engine.logs(large.id, 1), "it runs")
        assert (state_of(small.id).exit_code, state_of(small.id).out_of_memory) == (137, True)
        assert (state_of(large.id).running, state_of(large.id).out_of_memory) == (True, False)

    def test_a_container_that_ends_by_itself_shows_its_exit_code(
        self, engine: Engine, spec: Callable[..., Spec], state_of: Callable[[str], Container]
    ) -> None:
        """The exit code outlives the process."""
        made = engine.create(spec(script=Script(exits=3)))
        engine.start(made.id)
        wait_until(lambda: state_of(made.id).status == "exited", "it ends")
        assert state_of(made.id).exit_code == 3

    def test_the_last_lines_of_a_log_outlive_the_process(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """The last lines of a crashed container can be shown; a removed one has none."""
        made = engine.create(spec(script=Script(exits=1, says="first\nsecond\nthird")))
        engine.start(made.id)
        wait_until(lambda: "third" in engine.logs(made.id, 10), "it writes")
        assert engine.logs(made.id, 2).splitlines() == ["second", "third"]
        engine.remove(made.id)
        assert engine.logs(made.id, 2) == ""

    def test_a_container_with_restarts_is_restarted_when_it_ends(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """The engine restarts a process that dies, and counts the restarts."""
        made = start_handler("SIGTERM", 5)
        engine.enable_restart(made)
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        wait_until(
            lambda: state_of(made).restarts == 1 and state_of(made).running, "it is started again"
        )

    def test_a_specification_can_ask_for_restarts_at_once(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """The proxy restarts with the engine in this way."""
        made = start_handler("SIGTERM", 5, restart=True)
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        wait_until(
            lambda: state_of(made).restarts == 1 and state_of(made).running, "it is started again"
        )

    def test_disabled_restarts_end_with_the_process(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """The container runs until its process ends, and is not restarted then."""
        made = start_handler("SIGTERM", 5, restart=True)
        engine.disable_restart(made)
        assert state_of(made).running
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        wait_until(lambda: state_of(made).status == "exited", "it ends")
        assert state_of(made).restarts == 0

    def test_a_container_without_restarts_stays_stopped(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """A replica that crashes before it is ready keeps its exit code."""
        made = start_handler("SIGTERM", 5)
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        wait_until(lambda: state_of(made).status == "exited", "it ends")
        assert (state_of(made).exit_code, state_of(made).restarts) == (5, 0)

    def test_a_signal_reaches_the_first_process(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """The process decides what to do at a signal."""
        made = start_handler("SIGUSR1", 9)
        engine.signal(made, "SIGUSR1")
        wait_until(lambda: state_of(made).status == "exited", "it ends")
        assert state_of(made).exit_code == 9

    def test_a_signal_does_not_change_the_restart_policy(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """The engine still restarts the container when it ends, also by the signal itself."""
        made = start_handler("SIGUSR1", 9, restart=True)
        for times in (2, 3):
            engine.signal(made, "SIGUSR1")
            wait_until(
                lambda times=times: engine.logs(made, 10).count(UP) == times,  # type: ignore[misc]  # a default argument binds the value
                "it is started again",
            )
            assert (state_of(made).restarts, state_of(made).running) == (times - 1, True)

    def test_a_command_in_a_container_gives_its_exit_code_and_output(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """The failure of a command is a result, not an error."""
        made = engine.create(spec())
        engine.start(made.id)
        assert engine.execute(made.id, ("echo", "hello", "there")) == (0, "hello there\n")
        assert engine.execute(made.id, ("false",))[0] == 1

    def test_a_stopped_container_runs_no_command(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str
    ) -> None:
        """A missing container has none either; both are errors."""
        made = engine.create(spec())
        for act in (
            lambda: engine.execute(made.id, ("true",)),
            lambda: engine.signal(made.id, "SIGUSR1"),
            lambda: engine.execute(f"{prefix}-never", ("true",)),
            lambda: engine.start(f"{prefix}-never"),
            lambda: engine.enable_restart(f"{prefix}-never"),
            lambda: engine.disable_restart(f"{prefix}-never"),
        ):
            with pytest.raises(EngineFailed):
                act()

    def test_the_last_exit_of_a_process_is_known_after_its_restart(
        self,
        engine: Engine,
        start_handler: Callable[..., str],
        state_of: Callable[[str], Container],
    ) -> None:
        """And while none runs; a process that was never ended has none."""
        made = start_handler("SIGUSR1", 9, restart=True)
        assert engine.find_last_exit(state_of(made)) is None
        engine.signal(made, "SIGUSR1")
        wait_until(lambda: engine.logs(made, 10).count(UP) == 2, "it is started again")
        again = engine.find_last_exit(state_of(made))
        engine.disable_restart(made)
        engine.stop(made, 0)
        stopped = engine.find_last_exit(state_of(made))
        assert again
        assert stopped
        assert (again.code, again.reason, stopped.code) == (9, "", 137)
        assert again.at
        assert stopped.at
        assert again.at <= stopped.at

    def test_a_log_has_the_times_of_its_lines(
        self, engine: Engine, start_handler: Callable[..., str], prefix: str
    ) -> None:
        """Those from a time on, or some at the end, can be read; a missing container has none."""
        made = start_handler("SIGTERM", 0)
        wait_until(lambda: bool(list(engine.read_log(made))), "it has written")
        lines = list(engine.read_log(made))
        at = lines[0][0]
        assert [text for _, text in lines] == [UP]
        assert list(engine.read_log(made, since=at)) == lines
        assert list(engine.read_log(made, since=at + timedelta(hours=1))) == []
        assert list(engine.read_log(made, lines=1)) == lines
        assert list(engine.read_log(f"{prefix}-never")) == []

    # --- names, labels, images

    def test_containers_are_found_by_all_their_labels(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """They are sorted by name, running or not, and every label has to be equal."""
        engine.create(spec("two", labelled={"slot": "2"}))
        engine.start(engine.create(spec("one", labelled={"slot": "1"})).id)
        assert [found.name for found in engine.containers(labels)] == [
            spec("one").name,
            spec("two").name,
        ]
        assert [found.labels["slot"] for found in engine.containers(labels | {"slot": "2"})] == [
            "2"
        ]
        assert engine.containers(labels | {"slot": "3"}) == []

    def test_a_name_is_given_once(self, engine: Engine, spec: Callable[..., Spec]) -> None:
        """A second container of that name is refused, whatever the state of the first is."""
        engine.create(spec())
        with pytest.raises(EngineFailed):
            engine.create(spec())

    def test_an_image_that_is_not_there_is_an_error_by_name(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str
    ) -> None:
        """No container is created, and the image has neither id nor layers."""
        with pytest.raises(EngineFailed) as caught:
            engine.create(spec(image=f"{prefix}:none"))
        assert prefix in caught.value.on + caught.value.detail
        assert engine.diff_ids(f"{prefix}:none") is None
        assert engine.platform(f"{prefix}:none") is None
        assert engine.image_id(f"{prefix}:none") is None

    def test_a_pull_of_what_the_registry_lacks_says_so(self, engine: Engine, missing: str) -> None:
        """A registry that does not answer is another error."""
        with pytest.raises(RegistryNotFound):
            engine.pull(missing, None, lambda _: None)

    @pytest.fixture
    def missing(self) -> str:
        """Return a reference that an available registry does not have."""
        raise NotImplementedError

    def test_a_build_puts_layers_on_its_base(
        self, engine: Engine, prefix: str, labels: dict[str, str], image_of: ImageOf
    ) -> None:
        """The image exists under its tag, and the builder's lines are reported."""
        base, _ = image_of(Script())
        lines: list[str] = []
        dockerfile = "ARG BASE\nFROM ${BASE}\nCOPY hello /hello\n"
        built = engine.build(
            pack_context({"Dockerfile": dockerfile, "hello": prefix}),
            dockerfile="Dockerfile",
            args={"BASE": base},
            tag=f"{prefix}:built",
            on_line=lines.append,
        )
        below = engine.diff_ids(base)
        layers = engine.diff_ids(f"{prefix}:built")
        assert below is not None
        assert layers is not None
        assert (layers[:-1], len(layers)) == (below, len(below) + 1)
        assert engine.image_id(f"{prefix}:built") == built
        assert layers in engine.layer_chains()
        assert any("COPY hello" in line for line in lines)

    def test_a_build_is_for_the_platform_that_is_named(self, engine: Engine, prefix: str) -> None:
        """Without a name it is the engine's own; nothing has to run for an image of files."""
        own = f"linux/{engine.architecture}"
        other = "linux/arm64" if engine.architecture == "amd64" else "linux/amd64"
        for platform in ("", own, other):
            tag = f"{prefix}:{platform.rpartition('/')[2] or 'own'}"
            engine.build(
                # Without a base, the classic builder would take the layer of another platform.
                pack_context({"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": tag}),
                dockerfile="Dockerfile",
                args={},
                tag=tag,
                platform=platform,
                on_line=lambda _: None,
            )
            assert engine.platform(tag) == (platform or own)

    def test_a_build_that_fails_shows_the_builders_last_lines(
        self, engine: Engine, prefix: str, image_of: ImageOf
    ) -> None:
        """The detail has the instruction that failed, and there is no image of that name."""
        base, _ = image_of(Script())
        context = pack_context({"Dockerfile": "ARG BASE\nFROM ${BASE}\nCOPY absent /\n"})
        with pytest.raises(BuildFailed) as caught:
            engine.build(
                context,
                dockerfile="Dockerfile",
                args={"BASE": base},
                tag=f"{prefix}:built",
                on_line=lambda _: None,
            )
        assert "absent" in caught.value.detail
        assert engine.image_id(f"{prefix}:built") is None

    @pytest.fixture
    def small(self, engine: Engine, prefix: str) -> str:
        """Build an image of one layer; return its name."""
        context = pack_context({"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": prefix})
        engine.build(
            context, dockerfile="Dockerfile", args={}, tag=f"{prefix}:small", on_line=lambda _: None
        )
        return f"{prefix}:small"

    def test_an_image_is_known_by_every_name_it_was_given(
        self, engine: Engine, small: str, prefix: str
    ) -> None:
        """A tag is an additional name."""
        engine.tag(small, f"{prefix}:other")
        assert engine.image_id(f"{prefix}:other") == engine.image_id(small)

    def test_a_saved_image_can_be_loaded(self, engine: Engine, small: str) -> None:
        """A loaded archive is the saved image."""
        before = engine.image_id(small)
        engine.load(iter([b"".join(engine.save(small))]))
        assert engine.image_id(small) == before

    def test_bytes_that_are_not_an_archive_are_refused(self, engine: Engine) -> None:
        """Bytes that are not an image are an error of the engine."""
        with pytest.raises(EngineFailed):
            engine.load(iter([b"nonsense" * 1000]))

    def test_a_file_system_becomes_an_image(self, engine: Engine, prefix: str) -> None:
        """An archive of files becomes one layer."""
        engine.import_image(
            pack_context({"hello": prefix}), f"{prefix}:imported", ('CMD ["bash"]',)
        )
        assert len(engine.diff_ids(f"{prefix}:imported") or ()) == 1

    # --- networks, ports, volumes

    def test_a_network_keeps_its_subnet(
        self, engine: Engine, prefix: str, labels: dict[str, str]
    ) -> None:
        """A second call returns the same network."""
        assert engine.ensure_network(prefix, labels) == engine.ensure_network(prefix, labels)

    def test_an_address_is_given_once_at_a_time(
        self,
        engine: Engine,
        spec: Callable[..., Spec],
        prefix: str,
        labels: dict[str, str],
        state_of: Callable[[str], Container],
    ) -> None:
        """A second container cannot start with the address before the first is removed."""
        address = engine.ensure_network(prefix, labels).rpartition(".")[0] + ".77"
        one, two = (
            engine.create(spec(ending, network=prefix, ip=address)) for ending in ("one", "two")
        )
        engine.start(one.id)
        with pytest.raises(EngineFailed):
            engine.start(two.id)
        engine.remove(one.id)
        engine.start(two.id)
        assert state_of(two.id).running

    def test_a_port_in_use_is_an_error_of_its_own(
        self, engine: Engine, spec: Callable[..., Spec], port: int
    ) -> None:
        """Two containers cannot have one port of the machine."""
        one, two = (
            engine.create(spec(ending, network="bridge", ports={8080: ("127.0.0.1", port)}))
            for ending in ("one", "two")
        )
        engine.start(one.id)
        with pytest.raises(PortTaken):
            engine.start(two.id)

    def test_files_go_into_a_volume_whether_or_not_the_container_runs(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str, labels: dict[str, str]
    ) -> None:
        """Files can be written and read before the start, while it runs and after its end."""
        engine.ensure_volume(prefix, labels)
        made = engine.create(spec(volumes={prefix: ("/state", False)}))
        engine.put_file(made.id, "/state/before", b"1")
        assert engine.files(made.id, "/state") == {"before": b"1"}
        engine.start(made.id)
        engine.put_file(made.id, "/state/while", b"2")
        engine.put_file(made.id, "/state/before", b"\x00" * 70_000)
        engine.stop(made.id, 10)
        engine.put_file(made.id, "/state/after", b"")
        assert engine.files(made.id, "/state") == {
            "before": b"\x00" * 70_000,
            "while": b"2",
            "after": b"",
        }

    def test_a_volume_outlives_its_containers(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str, labels: dict[str, str]
    ) -> None:
        """A second call keeps the files, and another container finds them."""
        engine.ensure_volume(prefix, labels)
        one = engine.create(spec(volumes={prefix: ("/state", False)}))
        engine.put_file(one.id, "/state/kept", b"1")
        engine.remove(one.id)
        engine.ensure_volume(prefix, labels)
        two = engine.create(spec("two", volumes={prefix: ("/state", False)}))
        assert engine.files(two.id, "/state") == {"kept": b"1"}

    def test_a_missing_folder_differs_from_an_empty_one(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str, labels: dict[str, str]
    ) -> None:
        """A new volume has no files; a missing folder gives None."""
        engine.ensure_volume(prefix, labels)
        made = engine.create(spec(volumes={prefix: ("/state", False)}))
        assert engine.files(made.id, "/state") == {}
        assert engine.files(made.id, "/nowhere") is None

    def test_outside_of_volumes_nothing_is_written(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """A container's own file system is read-only, for its process and for its engine."""
        made = engine.create(spec())
        engine.start(made.id)
        with pytest.raises(EngineFailed):
            engine.put_file(made.id, "/etc/hello", b"1")

    # --- a lock that dies with its holder

    def test_a_tied_container_has_its_name_alone(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """A second start of the name returns None; the labels show who has it."""
        held = engine.start_tied(spec("lock", labelled={"owner": "ada"}, command=("cat",)))
        assert held is not None
        assert engine.start_tied(spec("lock", labelled={"owner": "bob"}, command=("cat",))) is None
        assert [found.labels["owner"] for found in engine.containers(labels)] == ["ada"]
        engine.end_tied(held)

    def test_the_name_of_an_ended_tied_container_is_free_at_once(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """The first container leaves nothing behind."""
        engine.end_tied(engine.start_tied(spec("lock", command=("cat",))))
        assert engine.containers(labels) == []
        engine.end_tied(engine.start_tied(spec("lock", command=("cat",))))

    # --- clearing up

    def test_objects_are_removed_by_all_their_labels(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str, labels: dict[str, str]
    ) -> None:
        """Containers, networks and volumes are removed; objects with other labels stay."""
        mine = labels | {"kind": "mine"}
        engine.ensure_volume(f"{prefix}-volume", mine)
        engine.ensure_network(f"{prefix}-network", mine)
        engine.start(engine.create(spec("mine", labelled={"kind": "mine"})).id)
        other = engine.create(spec("other"))
        assert sorted(engine.remove_labelled(mine)) == [
            f"{prefix}-mine",
            f"{prefix}-network",
            f"{prefix}-volume",
        ]
        assert [found.id for found in engine.containers(labels)] == [other.id]
        assert engine.remove_labelled(mine) == []
