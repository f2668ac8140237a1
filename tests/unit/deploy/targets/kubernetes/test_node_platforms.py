"""A rollout is refused before it begins if no node can run the image's programs."""

from __future__ import annotations

from typing import Any

import pytest

from deploy import pipeline
from deploy.errors import SettingsInvalid
from deploy.targets.kubernetes.node_platforms import require_node_platform
from tests.fakes.application import Application
from tests.fakes.kubernetes.api_server import FakeCluster, node


def check(*nodes: dict[str, Any], platform: str = "linux/amd64", **selector: str) -> None:
    """Check a platform against nodes, for pods with that node selector."""
    cluster = FakeCluster()
    cluster.node_list = list(nodes)
    pod = {"nodeSelector": {key.replace("_", "/"): value for key, value in selector.items()}}
    require_node_platform(cluster, pod, platform)


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm/v7"])
def test_an_image_that_no_node_can_run_is_refused(platform: str) -> None:
    """The error names both platforms and the setting."""
    with pytest.raises(SettingsInvalid, match=f"{platform}.*linux/amd64") as caught:
        check(node("amd64"), node("amd64"), platform=platform)
    assert 'platform = "linux/amd64"' in caught.value.next


def test_nodes_that_pods_do_not_select_do_not_count() -> None:
    """They never get a replica."""
    spot = node("arm64", pool="spot")
    check(node("amd64", pool="web"), spot, pool="web")
    with pytest.raises(SettingsInvalid):
        check(node("amd64", pool="web"), spot, pool="spot")


def test_some_other_nodes_cause_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A replica may come to one of them, unless a taint keeps it away."""
    tainted = node("arm64") | {"spec": {"taints": [{"key": "arm", "effect": "NoSchedule"}]}}
    check(node("amd64"), tainted)
    assert "nodes" not in caplog.text
    check(node("amd64"), tainted, node("arm64"))
    assert "1 of 3 nodes are not" in caplog.text


def test_a_node_without_labels_tells_its_processor(caplog: pytest.LogCaptureFixture) -> None:
    """The kubelet reports it too."""
    info = {"operatingSystem": "linux", "architecture": "arm64"}
    check({"metadata": {"name": "a"}, "status": {"nodeInfo": info}}, platform="linux/arm64")
    with pytest.raises(SettingsInvalid):
        check({"metadata": {"name": "a"}, "status": {"nodeInfo": info}})


@pytest.mark.parametrize("selector", [{"kubernetes.io_arch": "amd64"}, {"pool": "absent"}])
def test_nodes_that_may_be_added_later_are_not_refused(selector: dict[str, str]) -> None:
    """The pods wait for a node that they select."""
    check(node("arm64"), **selector)


@pytest.mark.parametrize("label", ["kubernetes.io/arch", "beta.kubernetes.io/arch"])
def test_pods_may_require_a_processor_by_their_affinity(label: str) -> None:
    """That counts as a node selector; a preference does not, because other nodes stay possible."""
    cluster = FakeCluster()
    cluster.node_list = [node("arm64")]
    term = {"matchExpressions": [{"key": label, "operator": "In", "values": ["amd64"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    require_node_platform(cluster, {"affinity": {"nodeAffinity": required}}, "linux/amd64")
    weighted = [{"weight": 1, "preference": term}]
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
    with pytest.raises(SettingsInvalid):
        require_node_platform(cluster, {"affinity": {"nodeAffinity": preferred}}, "linux/amd64")


def test_nodes_that_may_not_be_read_are_not_checked() -> None:
    """A deployer needs rights in its namespace only; nor is an unknown platform checked."""
    cluster = FakeCluster()
    cluster.node_list = None
    require_node_platform(cluster, {}, "linux/arm64")
    check(node("amd64"), platform="")


def test_a_rollout_is_refused_before_it_begins(staged: Application) -> None:
    """The history has no attempt, and what serves stays."""
    staged.cluster.node_list = [node("arm64")]
    staged.publish("2")
    before = staged.target("staging").history()
    with pytest.raises(SettingsInvalid, match="linux/arm64"):
        pipeline.release(staged.context("staging"))
    assert staged.target("staging").history() == before
