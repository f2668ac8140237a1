"""What every container engine does, whatever it is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Any

import pytest

from deploy.archive import pack_files
from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.errors import BuildFailed, EngineFailed, PortTaken, RegistryNotFound
from tests.fakes.engine import Script

Runs = Callable[[Script], tuple[str, tuple[str, ...]]]
_PATIENCE = 60
# What a script says once it heeds signals: those that come before are lost, as the first process of a container has no defaults.
UP = "up"


def until(reached: Callable[[], bool], what: str) -> None:
    """Waits for what an engine does in its own time."""
    deadline = time.monotonic() + _PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"not within {_PATIENCE} s: {what}"
        time.sleep(0.05)


def packed(files: dict[str, str]) -> IO[bytes]:
    """A build context."""
    return pack_files({name: text.encode() for name, text in files.items()})


class EngineContract:
    """Subclasses give the fixtures; everything that a test makes carries `labels` and a name that starts with `prefix`."""

    @pytest.fixture
    def engine(self) -> Engine:
        """The engine."""
        raise NotImplementedError

    @pytest.fixture
    def prefix(self) -> str:
        """A name that nothing else on the engine starts with."""
        raise NotImplementedError

    @pytest.fixture
    def runs(self) -> Runs:
        """Gives the image and the command of a container that behaves like a script."""
        raise NotImplementedError

    @pytest.fixture
    def port(self) -> int:
        """A port of this machine on which nobody listens."""
        raise NotImplementedError

    @pytest.fixture
    def labels(self, prefix: str) -> dict[str, str]:
        """What everything that a test makes is found by."""
        return {"dev.twinship.test": prefix}

    @pytest.fixture
    def spec(self, prefix: str, labels: dict[str, str], runs: Runs) -> Callable[..., Spec]:
        """Makes specifications: a name's ending, a script, and whatever else."""

        def made(ending: str = "one", script: Script | None = None, **more: Any) -> Spec:
            image, command = runs(script or Script(on_signal={"SIGTERM": 0}))
            more = {"image": image, "command": command, **more}
            return Spec(name=f"{prefix}-{ending}", labels=labels | more.pop("labelled", {}), **more)

        return made

    @pytest.fixture
    def heeding(self, engine: Engine, spec: Callable[..., Spec]) -> Callable[..., str]:
        """Starts a container that ends with a code at a signal; its id, as soon as it would."""

        def started(signal: str, code: int, **more: Any) -> str:
            made = engine.create(spec(script=Script(says=UP, on_signal={signal: code}), **more))
            engine.start(made.id)
            until(lambda: UP in engine.logs(made.id, 1), "it heeds signals")
            return made.id

        return started

    @pytest.fixture
    def now(self, engine: Engine, labels: dict[str, str]) -> Callable[[str], Container]:
        """Tells how a container is now."""
        return lambda container: next(
            found for found in engine.containers(labels) if found.id == container
        )

    # --- a container's life

    def test_a_container_is_made_without_being_started(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """Creating and starting are two steps, so that files can be put in between."""
        made = engine.create(spec())
        assert (made.name, made.status, made.running) == (spec().name, "created", False)

    def test_a_started_container_runs_until_it_is_stopped(
        self, engine: Engine, heeding: Callable[..., str], now: Callable[[str], Container]
    ) -> None:
        """A stopped container is still there, with the exit code it gave when it was asked to stop."""
        made = heeding("SIGTERM", 7)
        assert now(made).running
        engine.stop(made, 10)
        assert (now(made).status, now(made).exit_code) == ("exited", 7)

    def test_a_container_that_does_not_obey_is_killed(
        self, engine: Engine, spec: Callable[..., Spec], now: Callable[[str], Container]
    ) -> None:
        """After the time of grace it ends anyway."""
        made = engine.create(spec(script=Script()))
        engine.start(made.id)
        engine.stop(made.id, 1)
        assert (now(made.id).running, now(made.id).exit_code) == (False, 137)

    def test_stopping_and_removing_what_is_not_there_is_no_error(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str
    ) -> None:
        """Both may be repeated by a run that does not know how far the one before it came."""
        made = engine.create(spec())
        engine.stop(made.id, 1)
        engine.remove(made.id)
        engine.remove(made.id)
        engine.stop(made.id, 1)
        engine.remove(f"{prefix}-never")

    def test_a_running_container_can_be_removed(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """Removing kills."""
        made = engine.create(spec())
        engine.start(made.id)
        engine.remove(made.id)
        assert engine.containers(labels) == []

    def test_starting_what_runs_changes_nothing(
        self, engine: Engine, spec: Callable[..., Spec], now: Callable[[str], Container]
    ) -> None:
        """A run that goes on where another stopped may start what is started."""
        made = engine.create(spec())
        engine.start(made.id)
        engine.start(made.id)
        assert (now(made.id).running, now(made.id).restarts) == (True, 0)

    def test_a_container_that_ends_by_itself_shows_its_exit_code(
        self, engine: Engine, spec: Callable[..., Spec], now: Callable[[str], Container]
    ) -> None:
        """How a process ended can be told afterwards."""
        made = engine.create(spec(script=Script(exits=3)))
        engine.start(made.id)
        until(lambda: now(made.id).status == "exited", "it ends")
        assert now(made.id).exit_code == 3

    def test_the_last_lines_of_a_log_outlive_the_process(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """What a crashed container wrote last can be shown; one that is gone wrote nothing."""
        made = engine.create(spec(script=Script(exits=1, says="first\nsecond\nthird")))
        engine.start(made.id)
        until(lambda: "third" in engine.logs(made.id, 10), "it writes")
        assert engine.logs(made.id, 2).splitlines() == ["second", "third"]
        engine.remove(made.id)
        assert engine.logs(made.id, 2) == ""

    def test_what_is_kept_running_is_started_again_when_it_ends(
        self, engine: Engine, heeding: Callable[..., str], now: Callable[[str], Container]
    ) -> None:
        """A process that dies comes back without anybody's doing, and that it did is counted."""
        made = heeding("SIGTERM", 5)
        engine.keep_running(made)
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        until(lambda: now(made).restarts == 1 and now(made).running, "it is started again")

    def test_a_specification_can_ask_for_restarts_at_once(
        self, engine: Engine, heeding: Callable[..., str], now: Callable[[str], Container]
    ) -> None:
        """So the front door comes back with the engine."""
        made = heeding("SIGTERM", 5, restart=True)
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        until(lambda: now(made).restarts == 1 and now(made).running, "it is started again")

    def test_what_shall_stay_stopped_is_not_started_again(
        self, engine: Engine, heeding: Callable[..., str], now: Callable[[str], Container]
    ) -> None:
        """What was once kept running ends for good when its process does; until then it runs on."""
        made = heeding("SIGTERM", 5, restart=True)
        engine.keep_stopped(made)
        assert now(made).running
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        until(lambda: now(made).status == "exited", "it ends")
        assert now(made).restarts == 0

    def test_what_is_not_kept_running_stays_down(
        self, engine: Engine, heeding: Callable[..., str], now: Callable[[str], Container]
    ) -> None:
        """A replica that crashes before it was ready is found as it ended."""
        made = heeding("SIGTERM", 5)
        engine.execute(made, ("sh", "-c", "kill -TERM 1"))
        until(lambda: now(made).status == "exited", "it ends")
        assert (now(made).exit_code, now(made).restarts) == (5, 0)

    def test_a_signal_reaches_the_first_process(
        self, engine: Engine, heeding: Callable[..., str], now: Callable[[str], Container]
    ) -> None:
        """The process decides what a signal means."""
        made = heeding("SIGUSR1", 9)
        engine.signal(made, "SIGUSR1")
        until(lambda: now(made).status == "exited", "it ends")
        assert now(made).exit_code == 9

    def test_a_signal_is_no_wish_to_stop(
        self, engine: Engine, heeding: Callable[..., str], now: Callable[[str], Container]
    ) -> None:
        """What is kept running is started again as before when it ends later, or by the signal itself."""
        made = heeding("SIGUSR1", 9, restart=True)
        for times in (2, 3):
            engine.signal(made, "SIGUSR1")
            until(
                lambda times=times: engine.logs(made, 10).count(UP) == times,  # type: ignore[misc]
                "it is started again",
            )
            assert (now(made).restarts, now(made).running) == (times - 1, True)

    def test_a_command_in_a_container_gives_its_exit_code_and_output(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """A command that fails is an answer, not an error."""
        made = engine.create(spec())
        engine.start(made.id)
        assert engine.execute(made.id, ("echo", "hello", "there")) == (0, "hello there\n")
        assert engine.execute(made.id, ("false",))[0] == 1

    def test_a_container_that_is_down_takes_no_command(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str
    ) -> None:
        """Nor one that is not there; both are said."""
        made = engine.create(spec())
        for act in (
            lambda: engine.execute(made.id, ("true",)),
            lambda: engine.signal(made.id, "SIGUSR1"),
            lambda: engine.execute(f"{prefix}-never", ("true",)),
            lambda: engine.start(f"{prefix}-never"),
            lambda: engine.keep_running(f"{prefix}-never"),
            lambda: engine.keep_stopped(f"{prefix}-never"),
        ):
            with pytest.raises(EngineFailed):
                act()

    # --- names, labels, images

    def test_containers_are_found_by_all_their_labels(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """Running or not, in the order of their names; one label that differs is enough to be passed over."""
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
        """A second container of a name is refused, whatever state the first is in."""
        engine.create(spec())
        with pytest.raises(EngineFailed):
            engine.create(spec())

    def test_an_image_that_is_not_there_is_an_error_by_name(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str
    ) -> None:
        """No container is made, and questions about the image are answered with None."""
        with pytest.raises(EngineFailed) as caught:
            engine.create(spec(image=f"{prefix}:none"))
        assert prefix in caught.value.on + caught.value.detail
        assert engine.diff_ids(f"{prefix}:none") is None
        assert engine.image_id(f"{prefix}:none") is None

    def test_a_pull_of_what_the_registry_lacks_says_so(self, engine: Engine, missing: str) -> None:
        """It is told from a registry that cannot be asked."""
        with pytest.raises(RegistryNotFound):
            engine.pull(missing, None, lambda _: None)

    @pytest.fixture
    def missing(self) -> str:
        """A reference by digest that a registry, which can be asked, does not hold."""
        raise NotImplementedError

    def test_a_build_puts_layers_on_its_base(
        self, engine: Engine, prefix: str, labels: dict[str, str], runs: Runs
    ) -> None:
        """The built image is there under its tag, the builder's lines were said, and the engine tells its layers by diff id."""
        base, _ = runs(Script())
        said: list[str] = []
        dockerfile = "ARG BASE\nFROM ${BASE}\nCOPY hello /hello\n"
        built = engine.build(
            packed({"Dockerfile": dockerfile, "hello": prefix}),
            dockerfile="Dockerfile",
            args={"BASE": base},
            tag=f"{prefix}:built",
            said=said.append,
        )
        below = engine.diff_ids(base)
        layers = engine.diff_ids(f"{prefix}:built")
        assert below is not None
        assert layers is not None
        assert (layers[:-1], len(layers)) == (below, len(below) + 1)
        assert engine.image_id(f"{prefix}:built") == built
        assert layers in engine.chains()
        assert any("COPY hello" in line for line in said)

    def test_a_build_that_fails_shows_the_builders_last_lines(
        self, engine: Engine, prefix: str, runs: Runs
    ) -> None:
        """The instruction at fault is in the detail, and there is no image of that name."""
        base, _ = runs(Script())
        context = packed({"Dockerfile": "ARG BASE\nFROM ${BASE}\nCOPY absent /\n"})
        with pytest.raises(BuildFailed) as caught:
            engine.build(
                context,
                dockerfile="Dockerfile",
                args={"BASE": base},
                tag=f"{prefix}:built",
                said=lambda _: None,
            )
        assert "absent" in caught.value.detail
        assert engine.image_id(f"{prefix}:built") is None

    @pytest.fixture
    def small(self, engine: Engine, prefix: str) -> str:
        """A small image of one layer; its name."""
        context = packed({"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": prefix})
        engine.build(
            context, dockerfile="Dockerfile", args={}, tag=f"{prefix}:small", said=lambda _: None
        )
        return f"{prefix}:small"

    def test_an_image_is_known_by_every_name_it_was_given(
        self, engine: Engine, small: str, prefix: str
    ) -> None:
        """A tag is another name for the same image."""
        engine.tag(small, f"{prefix}:other")
        assert engine.image_id(f"{prefix}:other") == engine.image_id(small)

    def test_an_image_saved_by_one_engine_is_taken_by_another(
        self, engine: Engine, small: str
    ) -> None:
        """The archive of an image, loaded, is that image."""
        before = engine.image_id(small)
        engine.load(iter([b"".join(engine.save(small))]))
        assert engine.image_id(small) == before

    def test_an_archive_that_is_none_is_refused(self, engine: Engine) -> None:
        """Bytes that are no image are an error of the engine, not of the program."""
        with pytest.raises(EngineFailed):
            engine.load(iter([b"nonsense" * 1000]))

    def test_a_file_system_becomes_an_image(self, engine: Engine, prefix: str) -> None:
        """An archive of files is an image of one layer."""
        engine.import_image(packed({"hello": prefix}), f"{prefix}:imported", ('CMD ["bash"]',))
        assert len(engine.diff_ids(f"{prefix}:imported") or ()) == 1

    # --- networks, ports, volumes

    def test_a_network_keeps_its_subnet(
        self, engine: Engine, prefix: str, labels: dict[str, str]
    ) -> None:
        """Asking for a network again gives the same one."""
        assert engine.network(prefix, labels) == engine.network(prefix, labels)

    def test_an_address_is_given_once_at_a_time(
        self,
        engine: Engine,
        spec: Callable[..., Spec],
        prefix: str,
        labels: dict[str, str],
        now: Callable[[str], Container],
    ) -> None:
        """A fixed address is refused to a second container while the first runs, and free when that is gone."""
        address = engine.network(prefix, labels).rpartition(".")[0] + ".77"
        one, two = (
            engine.create(spec(ending, network=prefix, ip=address)) for ending in ("one", "two")
        )
        engine.start(one.id)
        with pytest.raises(EngineFailed):
            engine.start(two.id)
        engine.remove(one.id)
        engine.start(two.id)
        assert now(two.id).running

    def test_a_port_that_is_taken_is_told_from_other_failures(
        self, engine: Engine, spec: Callable[..., Spec], port: int
    ) -> None:
        """Two containers cannot be published on one port of the machine."""
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
        """What was written before the start, while it ran and after it stopped is read at any time."""
        engine.volume(prefix, labels)
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
        """Asking for a volume again keeps what is in it, and a second container finds it there."""
        engine.volume(prefix, labels)
        one = engine.create(spec(volumes={prefix: ("/state", False)}))
        engine.put_file(one.id, "/state/kept", b"1")
        engine.remove(one.id)
        engine.volume(prefix, labels)
        two = engine.create(spec("two", volumes={prefix: ("/state", False)}))
        assert engine.files(two.id, "/state") == {"kept": b"1"}

    def test_a_folder_that_is_not_there_is_told_from_an_empty_one(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str, labels: dict[str, str]
    ) -> None:
        """A fresh volume has no files; a path that leads nowhere has None."""
        engine.volume(prefix, labels)
        made = engine.create(spec(volumes={prefix: ("/state", False)}))
        assert engine.files(made.id, "/state") == {}
        assert engine.files(made.id, "/nowhere") is None

    def test_outside_of_volumes_nothing_is_written(
        self, engine: Engine, spec: Callable[..., Spec]
    ) -> None:
        """A container's own file system is read-only, for its process and for files that are put into it."""
        made = engine.create(spec())
        engine.start(made.id)
        with pytest.raises(EngineFailed):
            engine.put_file(made.id, "/etc/hello", b"1")

    # --- a lock that dies with its holder

    def test_what_is_held_is_held_once(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """The second who wants to hold a name gets None, and can see whom to wait for."""
        held = engine.start_tied(spec("lock", labelled={"owner": "ada"}, command=("cat",)))
        assert held is not None
        assert engine.start_tied(spec("lock", labelled={"owner": "bob"}, command=("cat",))) is None
        assert [found.labels["owner"] for found in engine.containers(labels)] == ["ada"]
        engine.end_tied(held)

    def test_what_is_released_can_be_held_again_at_once(
        self, engine: Engine, spec: Callable[..., Spec], labels: dict[str, str]
    ) -> None:
        """A lock that was given back leaves nothing behind."""
        engine.end_tied(engine.start_tied(spec("lock", command=("cat",))))
        assert engine.containers(labels) == []
        engine.end_tied(engine.start_tied(spec("lock", command=("cat",))))

    # --- clearing up

    def test_forgetting_takes_all_of_those_labels_and_no_more(
        self, engine: Engine, spec: Callable[..., Spec], prefix: str, labels: dict[str, str]
    ) -> None:
        """Containers, networks and volumes go, running or not; what carries other labels stays."""
        mine = labels | {"kind": "mine"}
        engine.volume(f"{prefix}-volume", mine)
        engine.network(f"{prefix}-network", mine)
        engine.start(engine.create(spec("mine", labelled={"kind": "mine"})).id)
        other = engine.create(spec("other"))
        assert sorted(engine.remove_labelled(mine)) == [
            f"{prefix}-mine",
            f"{prefix}-network",
            f"{prefix}-volume",
        ]
        assert [found.id for found in engine.containers(labels)] == [other.id]
        assert engine.remove_labelled(mine) == []
