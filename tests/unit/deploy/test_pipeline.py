"""The order of the stages, and what of them is left out when nothing asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import pipeline
from deploy.errors import GoldenMiss, ModelUnknown, RegistryNotFound, ReleaseUnknown, RolloutFailed, SmokeFailed, VerifyFailed
from deploy.platform import home
from deploy.rollout import Only
from tests.fakes.application import Application
from tests.fakes.engine import Script
from tests.fakes.trials import URL as TRIAL

DOOR = "http://127.0.0.1:8080"
REPOSITORY = "classifier"


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """An application with one published model, that was never released."""
    application = Application(tmp_path)
    application.publish("1")
    return application


@pytest.fixture
def released(application: Application) -> Application:
    """The same, released once, and with a clean record of what was asked for."""
    pipeline.release(application.site())
    forget(application)
    return application


def forget(application: Application) -> None:
    """Clears what was noted of earlier runs."""
    for noted in (
        application.engine.built,
        application.engine.loaded,
        application.engine.happened,
        application.registry.sent,
        application.registry.put,
        application.store.streamed,
        application.trials.tried,
        application.play.played,
    ):
        noted.clear()


def sent(application: Application) -> int:
    """The bytes that went to the registry."""
    return sum(len(application.registry.blobs[repository][digest]) for repository, digest in application.registry.sent)


def test_a_first_release_goes_all_the_way(application: Application) -> None:
    """Code is built, joined with the model, tried, pushed, served, and proven at the front door."""
    done = pipeline.release(application.site())
    image = done.rollout.attempt.release.image
    assert (done.changed, done.rollout.outcome, done.verdict.passed) == (True, "succeeded", True)
    assert image.digest in application.registry.manifests[REPOSITORY]
    assert [tag for tag, _ in application.engine.built if tag.startswith("twinship/classifier:")] == [
        f"twinship/classifier:app-{image.app.key}"
    ]
    assert application.trials.tried == [image.config]
    assert [url for url, _ in application.play.played] == [TRIAL, TRIAL, DOOR, DOOR]
    assert application.site().target.serves(done.rollout.attempt.release)


def test_a_release_of_nothing_new_moves_nothing(released: Application) -> None:
    """Nothing is built, tried, sent or restarted; what serves is asked once more."""
    before = released.state()
    done = pipeline.release(released.site())
    assert (done.changed, done.rollout.attempt.id) == (False, 1)
    assert released.state() == before
    assert (released.engine.built, released.registry.sent, released.trials.tried, released.engine.happened) == ([], [], [], [])
    assert [url for url, _ in released.play.played] == [DOOR]


def test_a_release_of_nothing_new_that_answers_wrongly_is_said(released: Application) -> None:
    """That nothing changed does not mean that all is well."""
    released.play.wrong[DOOR] = "expected 3, got 8"
    with pytest.raises(VerifyFailed):
        pipeline.release(released.site())


def test_a_new_model_moves_no_code(released: Application) -> None:
    """Nothing is built, and of the layers only the model's is sent and loaded."""
    released.publish("2", size=50_000)
    done = pipeline.release(released.site())
    layer = done.rollout.attempt.release.image.layer
    assert layer.model.version == "2"
    assert released.engine.built == []
    assert (REPOSITORY, layer.digest) in released.registry.sent
    assert sent(released) < layer.size + 5000
    assert [len(names) for names in released.engine.loaded] == [1]


def test_new_code_moves_no_model(released: Application) -> None:
    """The model's bytes are neither read from the store nor sent."""
    released.write("app/main.py", "print('two')\n")
    done = pipeline.release(released.site())
    layer = done.rollout.attempt.release.image.layer
    assert done.changed
    assert released.store.streamed == []
    assert (REPOSITORY, layer.digest) not in released.registry.sent
    assert len(released.engine.built) == 1


def test_what_another_machine_built_and_pushed_is_not_made_again(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With an empty cache, code and model are found in the registry, and the same image comes of them."""
    before = pipeline.serving(released.site()).attempt.release.image.digest
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    site = released.site()
    joined = pipeline.join(site, pipeline.build(site), pipeline.fetch(site, "latest"))
    assert joined.digest == before
    assert released.engine.built == []
    assert released.store.streamed == []


def test_stages_one_by_one_come_to_the_same_image(released: Application) -> None:
    """A CI system that runs them as steps of its own releases what a laptop does."""
    site = released.site()
    joined = pipeline.join(site, pipeline.build(site), pipeline.fetch(site, "1"))
    assert pipeline.check(site, joined).passed
    done = pipeline.deploy(site, pipeline.push(site, joined))
    first, second = (rollout.attempt.release for rollout in site.target.history())
    assert first == second == done.attempt.release
    assert pipeline.verify(site).passed


def test_a_model_that_is_not_published_stops_before_anything_is_built(application: Application) -> None:
    """Nothing was changed by then."""
    with pytest.raises(ModelUnknown):
        pipeline.release(application.site(), "7")
    assert application.registry.put == []
    assert [tag for tag, _ in application.engine.built if "app-" in tag] == []


def test_an_image_that_fails_its_trial_is_not_pushed(released: Application) -> None:
    """The registry and what serves are left alone."""
    before = released.site().target.replicas()
    released.write("app/main.py", "print('wrong')\n")
    released.play.wrong[TRIAL] = "expected 3, got 8"
    released.trials.alive = False
    with pytest.raises(SmokeFailed):
        pipeline.release(released.site())
    assert released.registry.put == []
    assert released.site().target.replicas() == before
    assert len(released.site().target.history()) == 1


def test_a_miss_at_the_front_door_puts_the_previous_release_back(released: Application) -> None:
    """Though the image passed its trial."""
    before = released.site().target.replicas()
    released.publish("2")
    released.play.wrong[DOOR] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        pipeline.release(released.site())
    assert released.site().target.replicas() == before
    assert [rollout.outcome for rollout in released.site().target.history()] == ["succeeded", "undone"]


def test_a_release_whose_replicas_crash_is_taken_back_and_can_be_mended(released: Application) -> None:
    """The next release starts from what served before."""
    site = released.site()
    released.write("app/main.py", "crash()\n")
    joined = pipeline.join(site, pipeline.build(site), pipeline.fetch(site, "latest"))
    released.scripted(joined.config, Script(exits=1, says="Traceback"))
    with pytest.raises(RolloutFailed) as caught:
        pipeline.release(released.site())
    assert "Traceback" in caught.value.detail
    released.write("app/main.py", "print('mended')\n")
    assert pipeline.release(released.site()).rollout.attempt.id == 3


def test_what_serves_no_more_is_released_again(released: Application) -> None:
    """The same image, where a replica was lost, is rolled out anew."""
    released.engine.stop(released.site().target.replicas()[0].name, 0)
    done = pipeline.release(released.site())
    assert (done.changed, done.rollout.attempt.id) == (True, 2)
    assert released.site().target.serves(done.rollout.attempt.release)


def test_another_environment_of_the_same_registry_takes_blobs_over(released: Application) -> None:
    """Nothing but JSON is sent twice to one registry."""
    site = released.site()
    joined = pipeline.serving(site).attempt.release.image
    pushed = pipeline.push(released.site("other"), joined)
    assert pushed.reference == f"registry.example/elsewhere/classifier@{joined.digest}"
    assert released.registry.sent == []
    assert len(released.registry.mounted) >= 3


# --- going back


@pytest.fixture
def grown(released: Application) -> Application:
    """Released three times: code one with model 1, code two with model 1, code two with model 2."""
    released.write("app/main.py", "print('two')\n")
    pipeline.release(released.site())
    released.publish("2")
    pipeline.release(released.site())
    forget(released)
    return released


def halves(application: Application) -> list[tuple[str, str]]:
    """The code and the model of every release in the history, the code as a letter."""
    keys: dict[str, str] = {}
    found = []
    for rollout in application.site().target.history():
        image = rollout.attempt.release.image
        keys.setdefault(image.app.key, "abc"[len(keys)])
        found.append((keys[image.app.key], image.layer.model.version))
    return found


@pytest.mark.parametrize(
    ("number", "only", "expected", "tried"),
    [
        (None, None, ("b", "1"), 0),
        (1, None, ("a", "1"), 0),
        (None, "model", ("b", "1"), 0),
        (None, "code", ("a", "2"), 1),
        (1, "code", ("a", "2"), 1),
        (1, "model", ("b", "1"), 0),
    ],
)
def test_a_rollback_takes_back_what_it_is_asked_to(
    grown: Application, number: int | None, only: Only | None, expected: tuple[str, str], tried: int
) -> None:
    """The model, the code, or both; a pair that never served is tried out first, and nothing is built or read from the store."""
    done = pipeline.rollback(grown.site(), number, only)
    assert halves(grown) == [("a", "1"), ("b", "1"), ("b", "2"), expected]
    assert (done.rollout.attempt.trigger, done.rollout.attempt.id, done.changed) == ("rollback", 4, True)
    assert grown.site().target.serves(done.rollout.attempt.release)
    assert len(grown.trials.tried) == tried
    assert (grown.engine.built, grown.store.streamed) == ([], [])


def test_a_rollback_needs_nothing_but_the_registry(grown: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another machine with an empty cache can go back, to a pair that never served as well."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    pipeline.rollback(grown.site(), None, "code")
    assert halves(grown)[-1] == ("a", "2")
    assert not (home() / "wheels").exists()


def test_a_rollback_to_what_the_registry_lost_changes_nothing(grown: Application) -> None:
    """It is found before anything is drained."""
    first = grown.site().target.history()[0].attempt.release
    grown.registry.manifests[REPOSITORY].pop(first.image.digest)
    before = grown.state()
    with pytest.raises(RegistryNotFound) as caught:
        pipeline.rollback(grown.site(), 1, None)
    assert caught.value.on == first.reference
    assert grown.state() == before


def test_a_pair_that_never_served_and_fails_its_trial_changes_nothing(grown: Application) -> None:
    """Old code may not know a new model."""
    grown.play.wrong[TRIAL] = "expected 3, got 8"
    grown.trials.alive = False
    serving = pipeline.serving(grown.site())
    with pytest.raises(SmokeFailed):
        pipeline.rollback(grown.site(), None, "code")
    assert pipeline.serving(grown.site()) == serving


def test_where_nothing_was_released_nothing_can_be_verified_or_taken_back(application: Application) -> None:
    """Both say what to do first."""
    for ask in (lambda: pipeline.verify(application.site()), lambda: pipeline.rollback(application.site(), None, None)):
        with pytest.raises(ReleaseUnknown) as caught:
            ask()
        assert "invoke release" in caught.value.next


def test_a_release_without_its_model_in_the_cache_is_proven_from_the_registry(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The golden cases are at the head of the model's layer, wherever that is."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    assert pipeline.verify(released.site()).passed
    assert released.play.played == [(DOOR, ("three",))]
