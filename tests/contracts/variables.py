"""The rules of a target's variables, as tests that any target can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pytest

from deploy.records import Ending, Release
from deploy.rollout.target import Target
from deploy.variables import NO_VARIABLES, Variables
from tests.contracts.target import Place, trust
from tests.fakes.releases import attempt

OLD = Variables({"MODE": "costs $(PATH) $$5", "OLD": ""}, {"API_KEY": "planted-old"})
NEW = Variables({"MODE": "new\nlines"}, {"API_KEY": "planted-new", "TOKEN": "planted-ü"})


class GivingPlace(Place, Protocol):
    """An environment whose replicas can be asked for their variables."""

    def environments(self) -> list[dict[str, str]]:
        """Return the variables that each replica was given, whatever its state is."""


def parse_environment(text: str) -> dict[str, str]:
    """Return those of a process's variables that these rules give, from its file in /proc."""
    items = (item.partition("=") for item in text.split("\0"))
    known = OLD.environment | NEW.environment
    return {name: value for name, _, value in items if name in known}


def kill_before_settling(place: GivingPlace, release: Release) -> None:
    """Let the deployer of attempt 2, with new variables, end once it has recorded its success."""
    begun = attempt(2, release)
    killed = place.target(variables=NEW)
    with killed.lock():
        killed.begin(begun)
        killed.serve(release, trust)
        killed.end(begun, Ending(outcome="succeeded", at=begun.at))


def roll_out(target: Target, number: int, release: Release, returns_to: int | None = None) -> None:
    """Roll a release out as an attempt of that number, which succeeds.

    Args:
        target: where.
        number: the number of the attempt.
        release: the release.
        returns_to: the number of the attempt that is repeated, if one is.
    """
    begun = attempt(number, release, "rollback" if returns_to else "release")
    with target.lock():
        target.begin(begun, target.variables_for(returns_to))
        target.serve(release, trust)
        target.end(begun, Ending(outcome="succeeded", at=begun.at))
        target.settle(release)


def fail(target: Target, number: int, release: Release, previous: Release) -> None:
    """Roll a release out, and undo it as if it was not proven."""
    begun = attempt(number, release)
    with target.lock():
        target.begin(begun)
        target.serve(release, trust)
        undo(target, number, release, previous)


def undo(target: Target, number: int, release: Release, previous: Release) -> None:
    """Undo an attempt at a release; the lock is held."""
    begun = attempt(number, release)
    target.restore(previous)
    target.settle(previous)
    target.end(begun, Ending(outcome="undone", at=begun.at))


def given(variables: Variables, count: int = 2) -> list[Mapping[str, str]]:
    """Return the variables of so many replicas that have these."""
    return [variables.environment] * count


class VariablesContract:
    """The rule that takes real processes; subclasses have the fixture `place`.

    It is an environment without a release.
    """

    @pytest.fixture
    def place(self) -> GivingPlace:
        """An environment without a release."""
        raise NotImplementedError

    def test_an_undo_returns_the_variables_of_the_previous_release(
        self, place: GivingPlace
    ) -> None:
        """Also to a replica that ended meanwhile, and whatever the settings say by then."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        begun = attempt(2, b := place.release("b"))
        target = place.target(variables=NEW)
        with target.lock():
            target.begin(begun)
            target.serve(b, trust)
            gone = [item for item in target.replicas() if item.image == a.image.digest][1:]
            for replica in gone:
                place.lose(replica.name)
        later = place.target(variables=NO_VARIABLES)
        with later.lock():
            undo(later, 2, b, a)
        assert place.environments() == given(OLD)
        assert (later.variables(), place.answers()) == (OLD, {"a"})
        assert later.serves(a)


class AttemptsContract(VariablesContract):
    """All rules: also what interrupted, repeated and equal attempts leave."""

    def test_replicas_get_values_and_secrets_as_they_are(self, place: GivingPlace) -> None:
        """The target reads them back, and tells secrets from values."""
        assert place.target(variables=OLD).variables() == NO_VARIABLES
        roll_out(place.target(variables=OLD), 1, place.release("a"))
        assert place.environments() == given(OLD)
        assert place.target().variables() == OLD

    def test_other_variables_replace_the_replicas_of_a_release(self, place: GivingPlace) -> None:
        """A secret that changed is enough."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        rotated = Variables(OLD.values, {"API_KEY": "planted-other"})
        roll_out(place.target(variables=rotated), 2, a)
        assert place.environments() == given(rotated)
        assert (place.target().variables(), place.answers()) == (rotated, {"a"})
        assert place.target().serves(a)

    def test_equal_variables_replace_nothing(self, place: GivingPlace) -> None:
        """Another attempt at the same release uses its replicas."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        before = place.target().replicas()
        roll_out(place.target(variables=OLD), 2, a)
        assert place.target().replicas() == before

    @pytest.mark.parametrize(
        "variables", [NEW, Variables({"MODE": "b"}, OLD.secrets), NO_VARIABLES]
    )
    def test_variables_that_are_no_longer_named_are_gone(
        self, place: GivingPlace, variables: Variables
    ) -> None:
        """Whatever is left of them."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        roll_out(place.target(variables=variables), 2, a)
        assert place.environments() == given(variables)
        assert place.target().variables() == variables

    def test_an_undo_of_other_variables_returns_those_before(self, place: GivingPlace) -> None:
        """The release is the same one before and after."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        fail(place.target(variables=NEW), 2, a, a)
        assert place.environments() == given(OLD)
        assert (place.target().variables(), place.answers()) == (OLD, {"a"})

    @pytest.mark.parametrize("variables", [NEW, OLD])
    def test_a_killed_change_of_variables_is_completed_or_taken_back(
        self, place: GivingPlace, variables: Variables
    ) -> None:
        """What the killed deployer left with other variables is removed either way."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        killed = place.target(variables=NEW)
        with killed.lock():
            killed.begin(attempt(2, a))
            killed.serve(a, trust)
        roll_out(place.target(variables=variables), 3, a)
        assert place.environments() == given(variables)
        assert place.target().variables() == variables
        assert place.target().serves(a)

    def test_a_rollout_that_was_killed_before_it_was_settled_is_the_one_that_serves(
        self, place: GivingPlace
    ) -> None:
        """A later undo returns to it, and not to what it replaced."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        kill_before_settling(place, a)
        fail(place.target(variables=OLD), 3, a, a)
        assert place.environments() == given(NEW)
        assert place.target().variables() == NEW

    def test_variables_that_were_replaced_just_now_may_be_wanted_again(
        self, place: GivingPlace
    ) -> None:
        """Their replicas are there, if the deployer was killed before it removed them."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        kill_before_settling(place, a)
        roll_out(place.target(variables=OLD), 3, a)
        assert place.environments() == given(OLD)
        assert place.target().variables() == OLD
        assert place.target().serves(a)

    def test_what_serves_can_be_repeated_with_its_own_variables(self, place: GivingPlace) -> None:
        """A rollback to it replaces nothing, whatever the settings say by then."""
        roll_out(place.target(variables=OLD), 1, a := place.release("a"))
        roll_out(place.target(variables=OLD), 2, a)
        before = place.target().replicas()
        roll_out(place.target(variables=NEW), 3, a, returns_to=2)
        assert place.environments() == given(OLD)
        assert place.target().replicas() == before

    def test_nothing_of_a_secret_is_shown(self, place: GivingPlace) -> None:
        """What a target returns for people has names at most."""
        roll_out(target := place.target(variables=OLD), 1, place.release("a"))
        shown = repr((target.history(), target.replicas(), target.variables()))
        assert "API_KEY" not in shown
        assert "planted" not in shown
