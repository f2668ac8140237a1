"""Reading a folder of object templates; an error names the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import KINDS
from deploy.errors import SettingsInvalid
from deploy.targets.kubernetes import templates
from tests.fakes.renderings import edit_templates, rendering


def read_error(folder: Path) -> SettingsInvalid:
    """Return the error for a folder of templates."""
    with pytest.raises(SettingsInvalid) as caught:
        templates.read_templates(folder)
    return caught.value


def error_after(tmp_path: Path, file: str, old: str, new: str) -> tuple[int, str]:
    """Return the line and the problem of a file after a text in it was replaced."""
    folder = edit_templates(tmp_path)
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(old) >= 1
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    error = read_error(folder)
    path, _, line = error.on.rpartition(":")
    assert path == str(folder / file)
    return int(line), error.what.removeprefix("an object template is broken: ")


def line_of(file: str, text: str) -> int:
    """Return the line on which a text first occurs in a file of the suite."""
    lines = (templates.DEFAULT_FOLDER / file).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_the_suites_templates_are_valid() -> None:
    """There is one object of each kind, in the version of the client."""
    found = templates.read_templates(templates.DEFAULT_FOLDER)
    assert found.keys() == templates.FILES.keys()
    assert all(item["apiVersion"] == KINDS[kind].api_version for kind, item in found.items())


def test_every_template_of_the_suite_is_rendered() -> None:
    """The only other file is the one for the deployer's permissions."""
    assert {path.name for path in templates.DEFAULT_FOLDER.iterdir()} == {
        *templates.FILES.values(),
        "rbac.yaml",
    }


@pytest.mark.parametrize("file", templates.FILES.values())
def test_a_missing_file_is_reported_with_its_source(tmp_path: Path, file: str) -> None:
    """A folder must be complete, so that no file of another version is mixed in."""
    folder = edit_templates(tmp_path)
    (folder / file).unlink()
    error = read_error(folder)
    assert (error.what, error.on) == ("an object template is missing", str(folder / file))
    assert error.next == f"copy {file} from the suite's deploy/manifests, then edit it"


def test_the_folder_is_relative_to_the_settings(tmp_path: Path) -> None:
    """The working directory does not matter."""
    folder = edit_templates(tmp_path, "deployment.yaml", spec__minReadySeconds=7)
    assert rendering(folder).object_templates["Deployment"]["spec"]["minReadySeconds"] == 7
    assert "minReadySeconds" not in rendering().object_templates["Deployment"]["spec"]


def test_an_unreadable_file_is_reported_with_the_reason(tmp_path: Path) -> None:
    """It may be a folder, or have another encoding."""
    path = edit_templates(tmp_path) / "service.yaml"
    path.write_bytes(b"\xff\xfe")
    assert read_error(path.parent).what == "an object template cannot be read: it is not UTF-8"
    path.unlink()
    path.mkdir()
    assert read_error(path.parent).what == "an object template cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        (
            "  type: ClusterIP",
            "  type: ClusterIP: no",
            "type: ClusterIP",
            "mapping values are not allowed here",
        ),
        ("  type: ClusterIP", "\ttype: ClusterIP", "type: ClusterIP", "cannot start any token"),
        ("  type: ClusterIP", "  type: 'ClusterIP", "", "unexpected end of stream"),
        (
            "  type: ClusterIP",
            "  type: ClusterIP\n  type: NodePort",
            "selector:",
            "the key 'type' is written twice",
        ),
        ("  type: ClusterIP", "  [type]: ClusterIP", "type: ClusterIP", "found unhashable key"),
        (
            "  type: ClusterIP",
            "  type: *unknown",
            "type: ClusterIP",
            "found undefined alias 'unknown'",
        ),
        ("  type: ClusterIP", "---\nkind: Pod", "type: ClusterIP", "but found another document"),
        (
            "  type: ClusterIP",
            "  type: !!python/name:os.system",
            "type: ClusterIP",
            "could not determine a constructor",
        ),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(
    tmp_path: Path, old: str, new: str, line: str, problem: str
) -> None:
    """The message is that of the parser; a repeated key is an error too."""
    found, what = error_after(tmp_path, "service.yaml", old, new)
    assert problem in what
    assert "\n" not in what
    assert found == line_of("service.yaml", line) or not line


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port: .nan", "Out of range float"),
        ("port: .inf", "Out of range float"),
        ("a: &a [*a]", "Circular reference"),
        ("a: \0", "unacceptable character"),
        ("a: !!binary aGVsbG8=", "bytes is not JSON serializable"),
    ],
)
def test_yaml_without_an_equivalent_in_json_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    """The API server uses JSON."""
    folder = edit_templates(tmp_path)
    (folder / "service.yaml").write_text(text, encoding="utf-8")
    error = read_error(folder)
    assert problem in error.what
    assert error.on == f"{folder / 'service.yaml'}:1"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "text", "3"])
def test_a_file_without_an_object_is_refused(tmp_path: Path, text: str) -> None:
    """An empty file or a list is no template."""
    folder = edit_templates(tmp_path)
    (folder / "service.yaml").write_text(text, encoding="utf-8")
    error = read_error(folder)
    assert (error.what, error.on) == (
        "an object template is broken: an object template must be a mapping",
        f"{folder / 'service.yaml'}:1",
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("deployment.yaml", "kind: Deployment", "kind: StatefulSet", "kind must be Deployment"),
        (
            "autoscaler.yaml",
            "apiVersion: autoscaling/v2",
            "apiVersion: autoscaling/v1",
            "apiVersion must be autoscaling/v2",
        ),
        (
            "service.yaml",
            "  selector:",
            "  selector: all\n  other:",
            "spec.selector must be a mapping",
        ),
        (
            "service.yaml",
            "  - name: http",
            "  - http\n    - name: http",
            "spec.ports[0] must be a mapping",
        ),
        ("service.yaml", "port: 80", 'port: "80"', "spec.ports[0].port must be a whole number"),
        ("service.yaml", "port: 80", "port: true", "spec.ports[0].port must be a whole number"),
        (
            "disruption.yaml",
            "  selector:",
            "  selector: []\n  other:",
            "spec.selector must be a mapping",
        ),
        (
            "deployment.yaml",
            "labels:",
            "labels: [a]\n  other:",
            "metadata.labels must be a mapping",
        ),
        (
            "deployment.yaml",
            "      containers:",
            "      containers: {}\n      other:",
            "spec.template.spec.containers must be a list",
        ),
        (
            "deployment.yaml",
            "periodSeconds: 1",
            "periodSeconds: soon",
            "startupProbe.periodSeconds must be a whole number",
        ),
        (
            "deployment.yaml",
            "seconds: 5\n",
            'seconds: "5"\n',
            "preStop.sleep.seconds must be a whole number",
        ),
        (
            "deployment.yaml",
            "              sleep:\n",
            "              exec: {command: [sleep, 5]}\n              sleep:\n",
            "preStop.exec.command[1] must be text",
        ),
        (
            "deployment.yaml",
            "          resources:",
            "          resources: small\n          other:",
            "containers[0].resources must be a mapping",
        ),
        (
            "ingress.yaml",
            "        paths:",
            "        paths: /\n        other:",
            "spec.rules[0].http.paths must be a list",
        ),
        (
            "ingress.yaml",
            "              service:",
            "              service: app\n              other:",
            "backend.service must be a mapping",
        ),
        (
            "autoscaler.yaml",
            "      resource:",
            "      resource: cpu\n      other:",
            "spec.metrics[0].resource must be a mapping",
        ),
        (
            "warm-up.yaml",
            "  template:",
            "  template: []\n  other:",
            "spec.template must be a mapping",
        ),
    ],
)
def test_a_value_of_another_shape_is_reported_with_path_and_line(
    tmp_path: Path, file: str, old: str, new: str, problem: str
) -> None:
    """Each value that the rendering uses is checked before the cluster sees it."""
    line, what = error_after(tmp_path, file, old, new)
    assert what.endswith(problem)
    assert line == line_of(file, old.strip())


@pytest.mark.parametrize(
    ("file", "path", "value", "line", "problem"),
    [
        (
            "deployment.yaml",
            "spec__template__spec__containers",
            [],
            "containers:",
            "spec.template.spec.containers is missing",
        ),
        (
            "deployment.yaml",
            "spec__template",
            {"metadata": {}},
            "template:",
            "spec.template.spec is missing",
        ),
        ("service.yaml", "spec__ports", None, "ports:", "spec.ports is missing"),
        (
            "service.yaml",
            "spec__ports",
            [{"name": "http"}],
            "- name: http",
            "spec.ports[0].port is missing",
        ),
        ("ingress.yaml", "spec__rules", [], "rules:", "spec.rules is missing"),
        ("warm-up.yaml", "spec", {}, "spec:", "spec is missing"),
    ],
)
def test_a_required_value_must_be_there(
    tmp_path: Path, file: str, path: str, value: Any, line: str, problem: str
) -> None:
    """A container, a port and a rule have no default; the error names the nearest line above."""
    folder = edit_templates(tmp_path, file, **{path: value})
    lines = (folder / file).read_text(encoding="utf-8").splitlines()
    error = read_error(folder)
    assert error.what == f"an object template is broken: {problem}"
    assert line in lines[int(error.on.rpartition(":")[2]) - 1]


def test_exactly_one_of_several_containers_is_named_app(tmp_path: Path) -> None:
    """That is the one of the application."""
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__containers=[{"name": "a"}, {"name": "b"}]
    )
    assert "one of spec.template.spec.containers must be named app" in read_error(folder).what
    edit_templates(
        tmp_path,
        "deployment.yaml",
        spec__template__spec__containers=[{"name": "app"}, {"name": "app"}],
    )
    assert "one of spec.template.spec.containers must be named app" in read_error(folder).what
    edit_templates(
        tmp_path,
        "deployment.yaml",
        spec__template__spec__containers=[{"name": "a"}, {"name": "app"}],
    )
    assert templates.app_container(
        templates.pod_spec(templates.read_templates(folder)["Deployment"])
    ) == {"name": "app"}


def test_a_key_without_a_value_counts_as_absent(tmp_path: Path) -> None:
    """An emptied block of YAML has no value."""
    folder = edit_templates(
        tmp_path,
        "deployment.yaml",
        metadata__annotations=None,
        spec__template__spec__nodeSelector=None,
    )
    found = templates.read_templates(folder)["Deployment"]
    assert "annotations" not in found["metadata"]
    assert "nodeSelector" not in templates.pod_spec(found)


def test_dates_are_text(tmp_path: Path) -> None:
    """Kubectl reads a date in an annotation as text too."""
    folder = edit_templates(tmp_path)
    text = (folder / "service.yaml").read_text(encoding="utf-8")
    (folder / "service.yaml").write_text(
        text.replace("metadata:", "metadata:\n  annotations: {since: 2026-01-01}", 1),
        encoding="utf-8",
    )
    assert templates.read_templates(folder)["Service"]["metadata"]["annotations"] == {
        "since": "2026-01-01"
    }


def test_a_key_may_occur_in_two_mappings(tmp_path: Path) -> None:
    """A key is unique within one mapping; the key `<<` merges another mapping."""
    folder = edit_templates(tmp_path)
    text = (folder / "service.yaml").read_text(encoding="utf-8")
    merged = text.replace(
        "  labels:\n", "  annotations: &more {a: b, c: d}\n  labels:\n    <<: *more\n    c: e\n", 1
    )
    (folder / "service.yaml").write_text(merged, encoding="utf-8")
    found = templates.read_templates(folder)["Service"]["metadata"]
    assert found["labels"].items() >= {("a", "b"), ("c", "e"), ("app.kubernetes.io/name", "app")}
    assert found["annotations"] == {"a": "b", "c": "d"}
