"""Rollouts by all strategies, under a steady load through the Service: no request is lost."""

from __future__ import annotations

from bench import cluster as on_cluster
from bench import rollouts
from bench.application import Application
from bench.load import Load
from bench.rollouts import Deployer, Step
from tests.e2e.cluster import Namespace, Sightings

AT_LEAST = 20.0
# The model of each rollout that is not undone.
SERVED = (2, 2, 1, 2, 2, 1, 2, 2)
KEY = "TWINSHIP_ENVIRONMENTS__STAGING__{}"


def test_no_request_is_lost_in_rollouts_of_mixed_strategies(
    served: Application, cluster: Namespace
) -> None:
    """Each response is whole, and from a model that may serve at that moment."""
    body = served.score_request(rollouts.PICTURE)
    variables = {KEY.format("CANARY__SECONDS"): "5", KEY.format("STANDBY"): "false"}
    deployer = Deployer(
        served, body, variables, ("--env", "staging"), on_cluster.WRONG_ON_A_CLUSTER
    )
    failing = Step(
        "wrong, blue-green, undone",
        lambda: deployer.release_wrong_code(**{KEY.format("STRATEGY"): "blue-green"}),
    )
    deployer.release(1)
    before = served.ok("history", "--env", "staging", "--json").json
    load = Load(
        cluster.host(),
        cluster.port(f"{served.name}-staging"),
        body,
        clients=6,
        pause=0.1,
        extractor=rollouts.first_label,
    )
    steps = (*on_cluster.ten_rollouts(deployer), failing)
    with Sightings(cluster, f"{served.name}-staging-") as sightings:
        rolled = rollouts.measure(
            load,
            "kubernetes",
            "steady",
            steps,
            rest=1.0,
            lingers=lambda span: sightings.outlast(span.begin, span.end),
        )

    assert not load.failures, load.failures[:5]
    assert rolled.mixed == 0
    assert rolled.rolling.rate >= AT_LEAST
    done = served.ok("history", "--env", "staging", "--json").json
    made = done[: len(done) - len(before)][::-1]
    assert [item["outcome"] for item in made] == [
        "undone" if "undone" in step.name else "succeeded" for step in steps
    ]
    assert [item["model"] for item in made if item["outcome"] == "succeeded"] == [
        f"imagenet@{version}" for version in SERVED
    ]
    released = {item["model_digest"] for item in done}
    assert set(load.models) == released
    assert len(released) == 2
