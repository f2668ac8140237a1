"""The reading of pipeline.toml and its overrides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

import pytest
from pydantic import ValidationError

from deploy.errors import SettingsInvalid
from deploy.settings.app import App
from deploy.settings.azure import Azure
from deploy.settings.environments import KINDS, Docker, Kubernetes
from deploy.settings.image import DEBIAN, ImageBuild
from deploy.settings.model import ModelSource
from deploy.settings.reading import Settings
from deploy.settings.table import Table

UNPRIVILEGED = 65534
BASE = "debian:trixie-slim@sha256:" + "a" * 64
WHOLE = f"""
[app]
name = "classifier"
[model]
name = "imagenet"
[image]
base = "{BASE}"
[environments.local]
"""


def read(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of an application with that pipeline.toml."""
    (tmp_path / "pipeline.toml").write_text(text, encoding="utf-8")
    return Settings.read(tmp_path, environ or {})


def read_error(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None
) -> SettingsInvalid:
    """Return the error for that pipeline.toml."""
    with pytest.raises(SettingsInvalid) as caught:
        read(tmp_path, text, environ)
    assert caught.value.on == str(tmp_path / "pipeline.toml")
    return caught.value


def read_problems(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the problems of that pipeline.toml, line by line."""
    return [line.strip() for line in read_error(tmp_path, text, environ).detail.splitlines()]


def read_docker(tmp_path: Path, keys: str = "") -> Docker:
    """Return the environment `local`, on a Docker host, with those keys."""
    found = read(tmp_path, WHOLE + keys).environment("local")
    assert isinstance(found, Docker)
    return found


CLUSTER = f'{WHOLE}[environments.staging]\ntarget = "kubernetes"\n'


def read_cluster(
    tmp_path: Path, keys: str = "", environ: Mapping[str, str] | None = None
) -> Kubernetes:
    """Return the environment `staging`, on a cluster, with those keys."""
    found = read(tmp_path, CLUSTER + keys, environ).environment("staging")
    assert isinstance(found, Kubernetes)
    return found


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    """Names and a base image are required; the other keys have defaults for one machine."""
    settings = read(tmp_path, WHOLE)
    local = read_docker(tmp_path)
    assert (settings.app.port, settings.model.mount, settings.model.store) == (
        8080,
        "/model",
        ".twinship/store",
    )
    assert (local.target, local.replicas, local.url, local.registry) == (
        "docker",
        2,
        "http://127.0.0.1:8080",
        "127.0.0.1:5000",
    )


def test_the_settings_of_this_project_are_valid() -> None:
    """A first release uses them."""
    assert Settings.read(Path(__file__).parents[4], {}).app.name == "classifier"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    """Every stage of a release sees the same settings."""
    settings = read(tmp_path, WHOLE)
    name = "port"
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings.app, name, 1)


def test_the_url_of_a_proxy_on_every_address_is_on_the_loopback_address(tmp_path: Path) -> None:
    """An address to listen on is not always one to call."""
    assert read_docker(tmp_path, 'address = "0.0.0.0"\nport = 81').url == "http://127.0.0.1:81"
    assert read_docker(tmp_path, 'address = "10.0.0.7"').url == "http://10.0.0.7:8080"


def test_an_unknown_environment_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """A mistyped --env is easy to correct."""
    with pytest.raises(SettingsInvalid, match="no environment is named 'prod'") as caught:
        read(tmp_path, WHOLE + "[environments.production]").environment("prod")
    assert "local, production" in caught.value.next


def test_every_problem_is_reported_at_once_with_its_key_path(tmp_path: Path) -> None:
    """A user corrects the file once."""
    text = (
        '[app]\nname = "Class Ifier"\n[model]\n[image]\nbase = "debian:latest"\n'
        '[environments.local]\nreplicas = 0\nport = "no"\n'
    )
    found = read_problems(tmp_path, text)
    assert [line.split(":")[0] for line in found] == [
        "app.name",
        "environments.local.port",
        "environments.local.replicas",
        "image.base",
        "model.name",
    ]
    assert "model.name: missing" in found
    assert found[0].endswith("not 'Class Ifier'")
    assert found[2].endswith("should be at least 1, not 0")
    assert read_error(tmp_path, text).what == "the configuration has 5 problems"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "[environments.local]\nreplica = 3",
            "environments.local.replica: unknown key; did you mean 'replicas'?",
        ),
        (
            "[image.wheels]\nrequirement = 'x'",
            "image.wheels.requirement: unknown key; did you mean 'requirements'?",
        ),
        ("[apps]", "apps: unknown key; did you mean 'app'?"),
        ("[zzz]", "zzz: unknown key; known here: app, azure, environments, image, model, smoke"),
        (
            "[model.zzz]",
            "model.zzz: unknown key; known here: account_key, mount, name, sample, sas, store",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    tmp_path: Path, line: str, problem: str
) -> None:
    """A mistyped key does not go unnoticed."""
    assert problem in read_problems(tmp_path, WHOLE.replace("[environments.local]\n", "") + line)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("environments.local.target", '"mainframe"'),
        ("environments.local.registry", '"https://ghcr.io/team"'),
        ("environments.local.replicas", "51"),
        ("environments.local.port", "65536"),
        ("environments.local.ready_within", "0"),
        ("environments.local.drain_within", "-1"),
        ("environments.local.registry", '"127.0.0.1:65536"'),
        ("environments.local.registry", '"127.0.0.1:0"'),
        ("environments.local.repository", '"../.."'),
        ("environments.local.repository", '"/team"'),
        ("environments.local.repository", '"team app"'),
        ("environments.local.repository", '"Team/App"'),
        ("environments.local.repository", '"team/app:1"'),
        ("environments.local.address", "[]"),
        ("environments.local.address", '""'),
        ("environments.local.address", '"localhost"'),
        ("environments.local.address", '"300.1.1.1"'),
        ("environments.local.address", '"::1"'),
        ("environments.local.address", '"127.0.0.1:80"'),
        ("environments.local.memory", '"much"'),
        ("environments.local.memory", '"1Mi"'),
        ("environments.local.pids", "1"),
        ("environments.local.private", '["/"]'),
        ("environments.local.private", '["metrics"]'),
        ("environments.local.private", '["/a b"]'),
        ("app.idempotent", '"/score"'),
        ("app.idempotent", '["/score?a=b"]'),
        ("app.port", "0"),
        ("app.files", '"app/**"'),
        ("app.files", "[1]"),
        ("model.name", "1"),
        ("model.mount", '"model"'),
        ("model.mount", '"/"'),
        ("model.mount", '"/model/../etc"'),
        ("image.suite", '"trixie main"'),
        ("image.builder", '"kaniko"'),
        ("image.platform", '"linux/x86_64"'),
        ("image.platform", '"amd64"'),
        ("image.base", f'"{BASE[:-1]}"'),
        ("image.wheels", '{ requirements = "r.txt", python = "2.7" }'),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_path(tmp_path: Path, key: str, value: str) -> None:
    """Types, ranges and forms are checked before anything runs."""
    table, _, name = key.rpartition(".")
    kept = (
        WHOLE.replace('name = "imagenet"\n', "")
        if key == "model.name"
        else WHOLE.replace(f'base = "{BASE}"\n', "")
    )
    kept = kept if key in ("model.name", "image.base") else WHOLE
    text = kept.replace(f"[{table}]\n", f"[{table}]\n{name} = {value}\n")
    found = read_problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(key)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("repository", "MyOrg/Classifier", "it must be lower-case, such as myorg/classifier"),
        ("repository", "team/app:1", "a path of lower-case names"),
        ("registry", "https://registry.example", "give the host alone, and the path in"),
        ("registry", "registry.example/team", "give the host alone, and the path in `repository`"),
        ("registry", "[::1]:5000", "IPv6"),
        ("registry", "::1", "IPv6"),
        ("registry", "registry example", "a host with its port, such as registry.example:5000"),
        ("registry", "", "a host with its port"),
        ("registry", "registry.example:99999", "from 1 to 65535"),
    ],
)
def test_the_address_of_images_is_refused_with_the_right_form(
    tmp_path: Path, key: str, value: str, problem: str
) -> None:
    """CI systems set it from names of their own, which may have capitals or a scheme."""
    variable = f"TWINSHIP_ENVIRONMENTS__LOCAL__{key.upper()}"
    with pytest.raises(SettingsInvalid) as caught:
        read(tmp_path, WHOLE, {variable: value})
    assert problem in caught.value.detail
    assert f"not {value!r} (set by {variable})" in caught.value.detail


@pytest.mark.parametrize(
    ("registry", "repository"),
    [("MyTeam.azurecr.io", "team/app"), ("10.0.0.7:5000", "a__b/c--d/e.f"), ("my_registry", "")],
)
def test_other_addresses_of_images_are_valid(
    tmp_path: Path, registry: str, repository: str
) -> None:
    """A host may have capitals, and a path the separators of the specification."""
    prefix = "TWINSHIP_ENVIRONMENTS__LOCAL__"
    environ = {f"{prefix}REGISTRY": registry, f"{prefix}REPOSITORY": repository}
    assert read(tmp_path, WHOLE, environ).environment("local").registry == registry


def test_at_least_one_environment_is_needed(tmp_path: Path) -> None:
    """The error says what to add."""
    text = WHOLE.replace("[environments.local]", "[environments]")
    assert read_problems(tmp_path, text) == [
        "environments: at least one environment is needed, for example [environments.local], not {}"
    ]


@pytest.mark.parametrize(
    "lines",
    [
        'registry = "ada:hunter2@registry.example"',
        'registry = "https://ada:hunter2@registry.example"',
        'registry = "https://registry.example?token=hunter2"',
        'password = ["hunter2"]',
        "username = { is = 'hunter2' }",
        "replicas = { password = 'hunter2' }",
        'repository = "https://hunter2@registry.example/a"',
    ],
)
def test_a_login_in_a_wrong_value_is_not_shown(tmp_path: Path, lines: str) -> None:
    """The key path is enough to find it."""
    text = WHOLE.replace("[environments.local]", f"[environments.local]\n{lines}")
    found = read_problems(tmp_path, text)
    assert found
    assert all(
        line.startswith(f"environments.local.{lines.split(maxsplit=1)[0]}") for line in found
    )
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("model", 'account_key = ["hunter2"]'),
        ("model", "sas = { is = 'hunter2' }"),
        ("azure", 'client_secret = "hunter2~"'),
        ("azure", 'client_secret = ["hunter2"]'),
    ],
)
def test_a_secret_of_azure_in_place_of_its_name_is_not_shown(
    tmp_path: Path, table: str, line: str
) -> None:
    """A client's secret often has letters that the name of a variable has not."""
    head = f"[{table}]\n"
    text = WHOLE.replace(head, f"{head}{line}\n") if head in WHOLE else f"{WHOLE}{head}{line}\n"
    found = read_problems(tmp_path, text)
    assert found[0].startswith(f"{table}.{line.split(maxsplit=1)[0]}: should ")
    assert "hunter2" not in "".join(found)


def test_an_image_in_a_wrong_value_is_shown(tmp_path: Path) -> None:
    """Its digest comes after the same sign as a host after a login."""
    text = WHOLE.replace(BASE, "debian:latest@sha256:12")
    assert read_problems(tmp_path, text)[0].endswith("not 'debian:latest@sha256:12'")


def test_an_environment_given_twice_is_refused(tmp_path: Path) -> None:
    """Two tables of one name are not merged."""
    assert "not TOML" in read_error(tmp_path, WHOLE + "[environments.local]\n").what


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """The wrong folder is a common mistake; the error names the page for a new application."""
    with pytest.raises(SettingsInvalid, match="there is no configuration") as caught:
        Settings.read(tmp_path, {})
    assert caught.value.on == str(tmp_path / "pipeline.toml")


def test_a_file_without_permission_is_not_reported_as_missing(tmp_path: Path) -> None:
    """The cure is different."""
    user = os.geteuid()
    (tmp_path / "pipeline.toml").write_text(WHOLE, encoding="utf-8")
    (tmp_path / "pipeline.toml").chmod(0)
    tmp_path.chmod(0o755)
    if user == 0:
        os.seteuid(UNPRIVILEGED)
    try:
        with pytest.raises(SettingsInvalid, match="cannot be read: Permission denied") as caught:
            Settings.read(tmp_path, {})
    finally:
        os.seteuid(user)
    assert caught.value.next == "make the file readable"


def test_a_file_that_cannot_be_read_or_parsed_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The errors for a folder, another encoding and another format differ."""
    path = tmp_path / "pipeline.toml"
    path.mkdir()
    with pytest.raises(SettingsInvalid, match="cannot be read: Is a directory"):
        Settings.read(tmp_path, {})
    path.rmdir()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsInvalid, match="cannot be read: it is not UTF-8"):
        Settings.read(tmp_path, {})
    assert "line 2" in read_error(tmp_path, "[app]\nname: classifier").what


def test_variables_override_the_file_and_add_to_it(tmp_path: Path) -> None:
    """A runner can change each setting without a change of the file."""
    environ = {
        "TWINSHIP_APP__PORT": "9000",
        "TWINSHIP_APP__FILES": "app/**,wsgi.py",
        "TWINSHIP_APP__IDEMPOTENT": "/score",
        "TWINSHIP_ENVIRONMENTS__LOCAL__PRIVATE": "",
        "TWINSHIP_ENVIRONMENTS__LOCAL__REPLICAS": "3",
        "TWINSHIP_ENVIRONMENTS__STAGING__READY_WITHIN": "1.5",
        "TWINSHIP_IMAGE__WHEELS__REQUIREMENTS": "r.txt",
        "TWINSHIP_IMAGE__WHEELS__PYTHON": "3.13",
    }
    settings = read(tmp_path, WHOLE + "replicas = 5", environ)
    assert settings.app.port == 9000
    assert settings.app.files == ("app/**", "wsgi.py")
    assert settings.app.idempotent == ("/score",)
    assert settings.environment("local").replicas == 3
    assert vars(settings.environment("local"))["private"] == ()
    assert settings.environment("staging").ready_within == 1.5
    assert settings.image.wheels is not None
    assert settings.image.wheels.python == "3.13"


def list_keys() -> Iterator[tuple[str, ...]]:
    """Yield the path of each key that holds a list."""
    tables: dict[tuple[str, ...], type[Table]] = {
        ("app",): App,
        ("model",): ModelSource,
        ("image",): ImageBuild,
        ("azure",): Azure,
        **{("environments", name): kind for name, kind in KINDS.items()},
    }
    for path, table in tables.items():
        for key, field in table.model_fields.items():
            if get_origin(field.annotation) is tuple:
                yield (*path, key)


@pytest.mark.parametrize("path", list(list_keys()))
def test_a_variable_sets_every_list(tmp_path: Path, path: tuple[str, ...]) -> None:
    """The text of a variable has no lists: an empty one is one without items."""
    kinds = "".join(f'[environments.{name}]\ntarget = "{name}"\n' for name in KINDS)
    variable = f"TWINSHIP_{'__'.join(path)}".upper()
    found: Any = read(tmp_path, WHOLE + kinds, {variable: ""}).model_dump()
    for key in path:
        found = found[key]
    assert found == ()


@pytest.mark.parametrize(
    ("base", "keys", "suite"),
    [
        ("debian:trixie-slim", "", "trixie"),
        ("mirror.example:5000/library/debian:bookworm", "", "bookworm"),
        ("python:3.13-slim", "", ""),
        ("notdebian:trixie", "", ""),
        ("python:3.13-slim", 'suite = "trixie"', "trixie"),
    ],
)
def test_only_debians_own_image_can_be_replaced(
    tmp_path: Path, base: str, keys: str, suite: str
) -> None:
    """Other images have more content than Debian's packages, unless `suite` is set."""
    text = WHOLE.replace(f'base = "{BASE}"', f'base = "{base}@sha256:{"a" * 64}"\n{keys}')
    assert read(tmp_path, text).image.debian == suite


def test_the_proxy_does_not_need_the_base_of_the_application(tmp_path: Path) -> None:
    """It is installed on that base if it is Debian, else on `parts_base` or a default."""
    other = f"python:3.13-slim@sha256:{'b' * 64}"
    mirror = f"mirror.example/debian:trixie-slim@sha256:{'c' * 64}"
    assert read(tmp_path, WHOLE).image.for_parts.base == BASE
    assert read(tmp_path, WHOLE.replace(BASE, other)).image.for_parts.base == DEBIAN
    assert (
        read(
            tmp_path, WHOLE.replace(BASE, f'{other}"\nparts_base = "{mirror}')
        ).image.for_parts.base
        == mirror
    )


def test_the_proxy_is_for_the_engine_and_not_for_the_platform_of_the_application(
    tmp_path: Path,
) -> None:
    """It runs on the engine that builds."""
    text = WHOLE.replace(f'base = "{BASE}"', f'base = "{BASE}"\nplatform = "linux/arm64"')
    image = read(tmp_path, text).image
    assert (image.platform, image.for_parts.platform) == ("linux/arm64", "")


def test_other_variables_are_not_settings(tmp_path: Path) -> None:
    """They change nothing."""
    assert read(
        tmp_path, WHOLE, {"TWINSHIP_HOME": "/x", "APP__PORT": "1", "TWINSHIP_COMMIT": "c"}
    ) == read(tmp_path, WHOLE)


def test_a_wrong_override_is_named_by_its_variable(tmp_path: Path) -> None:
    """The mistake is not in the file."""
    environ = {"TWINSHIP_APP__PORT": "many", "TWINSHIP_APP__PROT": "1", "TWINSHIP_MODEL": "x"}
    found = read_problems(tmp_path, WHOLE, environ)
    assert len(found) == 2
    assert found[0].startswith("app.port: ")
    assert found[0].endswith("not 'many' (set by TWINSHIP_APP__PORT)")
    assert found[1] == "app.prot: unknown key; did you mean 'port'? (set by TWINSHIP_APP__PROT)"


def test_an_override_below_a_value_replaces_the_value(tmp_path: Path) -> None:
    """A variable wins even if the file has no table there."""
    text = WHOLE.replace('[app]\nname = "classifier"\n', "app = 3\n")
    assert read(tmp_path, text, {"TWINSHIP_APP__NAME": "classifier"}).app.name == "classifier"


def test_a_container_may_use_what_the_environment_says(tmp_path: Path) -> None:
    """Without a setting, memory follows from the size of the model on a Docker host."""
    cluster = '[environments.b]\ntarget = "kubernetes"\nresources = { memory = "64M" }'
    settings = read(tmp_path, WHOLE + f'pids = 99\n[environments.a]\nmemory = "1.5Gi"\n{cluster}')
    local = settings.environment("local").limits(2**30)
    other = settings.environment("a").limits(2**30)
    assert (local.memory, local.pids) == (6 * 2**30, 99)
    assert (other.memory, other.pids) == (3 * 2**29, 2048)
    assert settings.environment("b").limits(2**30).memory == 64_000_000


def test_an_environment_on_a_cluster_needs_only_its_target(tmp_path: Path) -> None:
    """The other keys have defaults for every cluster."""
    staging = read_cluster(tmp_path)
    assert (staging.kubeconfig, staging.context, staging.namespace, staging.strategy) == (
        "",
        "",
        "default",
        "rolling",
    )
    assert (staging.service, staging.host, staging.autoscale, staging.replicas) == (
        "ClusterIP",
        "",
        None,
        2,
    )
    assert (staging.resources.memory, staging.canary.replicas, staging.warm_up) == (
        "512Mi",
        1,
        False,
    )


def test_tables_within_an_environment_are_read_and_overridden(tmp_path: Path) -> None:
    """Both the file and variables can set them."""
    keys = (
        'strategy = "canary"\n[environments.staging.canary]\nseconds = 5\n'
        "[environments.staging.autoscale]\nat_most = 9\n"
    )
    staging = read_cluster(
        tmp_path, keys, {"TWINSHIP_ENVIRONMENTS__STAGING__RESOURCES__CPU": "1500m"}
    )
    assert (staging.canary.seconds, staging.canary.errors) == (5.0, 0.01)
    assert staging.autoscale is not None
    assert (staging.autoscale.at_most, staging.autoscale.cpu) == (9, 80)
    assert (staging.resources.cpu, staging.resources.cpu_limit) == ("1500m", "2")


def test_a_variable_has_a_list_with_commas(tmp_path: Path) -> None:
    """The keys of node labels are one."""
    variable = "TWINSHIP_ENVIRONMENTS__STAGING__TOPOLOGY_KEYS"
    keys = ("topology.kubernetes.io/zone", "rack")
    assert read_cluster(tmp_path, "", {variable: ",".join(keys)}).topology_keys == keys


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "name_space = 'x'",
            "environments.staging.name_space: unknown key; did you mean 'namespace'?",
        ),
        ("in_flight = 3", "environments.staging.in_flight: unknown key"),
        (
            "[environments.staging.canary]\nreplica = 1",
            "environments.staging.canary.replica: unknown key; did you mean 'replicas'?",
        ),
        (
            "[environments.staging.resources]\nzzz = 1",
            (
                "environments.staging.resources.zzz: unknown key; "
                "known here: cpu, cpu_limit, ephemeral_storage, memory"
            ),
        ),
        (
            "[environments.staging.autoscale]\nat_least = 1",
            "environments.staging.autoscale.at_least: unknown key; did you mean 'at_most'?",
        ),
        ("[environments.staging.autoscale]", "environments.staging.autoscale.at_most: missing"),
        (
            "[environments.staging.canaries]",
            "environments.staging.canaries: unknown key; did you mean 'canary'?",
        ),
        ("[environments.local.canary]", "environments.local.canary: unknown key"),
        (
            "[environments.other]\nnamespace = 'x'",
            "environments.other.namespace: unknown key; known here: address, answer_within, drain",
        ),
    ],
)
def test_each_kind_of_target_knows_its_own_keys(tmp_path: Path, line: str, problem: str) -> None:
    """A key of another target would do nothing, so it is refused."""
    assert [
        found for found in read_problems(tmp_path, CLUSTER + line) if found.startswith(problem)
    ] != []


@pytest.mark.parametrize("target", ['"mainframe"', "3", "[]", "true", '""'])
def test_an_unknown_target_is_refused_with_the_known_ones(tmp_path: Path, target: str) -> None:
    """Its keys are not called unknown, as its kind is not known."""
    found = read_problems(
        tmp_path,
        WHOLE.replace(
            "[environments.local]", f"[environments.local]\ntarget = {target}\nnamespace = 'x'"
        ),
    )
    assert len(found) == 1
    assert found[0].startswith(
        "environments.local.target: should be one of 'docker', 'kubernetes', not "
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("namespace", '"Team_A"'),
        ("namespace", '""'),
        ("strategy", '"recreate"'),
        ("service", '"ExternalName"'),
        ("dns_label", '"my.label"'),
        ("host", '"https://a.example"'),
        ("pull_secret", '"Secret"'),
        ("pull_rate", "10"),
        ("canary", "{ errors = 1.5 }"),
        ("canary", "{ seconds = 0 }"),
        ("canary", '{ metrics = "metrics" }'),
        ("canary", '{ counter = "app-requests" }'),
        ("resources", '{ cpu = "250 m" }'),
        ("resources", '{ memory = "512MB" }'),
        ("autoscale", "{ at_most = 0 }"),
        ("autoscale", "{ at_most = 5, cpu = 101 }"),
    ],
)
def test_a_wrong_value_for_a_cluster_is_refused_with_its_key_path(
    tmp_path: Path, key: str, value: str
) -> None:
    """The cluster would refuse it in the middle of a rollout."""
    found = read_problems(tmp_path, f"{CLUSTER}{key} = {value}\n")
    assert len(found) == 1
    assert found[0].startswith(f"environments.staging.{key}")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ('dns_label = "a"', 'environments.staging: dns_label needs service = "LoadBalancer"'),
        (
            'ingress_class = "nginx"',
            "environments.staging: ingress_class and tls_secret need a host",
        ),
        ('tls_secret = "cert"', "environments.staging: ingress_class and tls_secret need a host"),
        (
            "replicas = 3\nautoscale = { at_most = 2 }",
            "environments.staging: autoscale.at_most is below replicas",
        ),
        (
            'canary = { requests = 9, metrics = "" }',
            "environments.staging.canary: requests needs metrics, by which they are counted",
        ),
        (
            'resources = { cpu = "2500m" }',
            "environments.staging.resources: cpu_limit (2) is below cpu (2500m)",
        ),
        (
            'resources = { cpu = "1k", cpu_limit = "999" }',
            "environments.staging.resources: cpu_limit (999) is below cpu (1k)",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    tmp_path: Path, keys: str, problem: str
) -> None:
    """They would do nothing, or the cluster would refuse them."""
    assert read_problems(tmp_path, CLUSTER + keys) == [problem]


@pytest.mark.parametrize(
    "keys",
    [
        'service = "LoadBalancer"\ndns_label = "a"',
        'host = "a.example"\ningress_class = "nginx"\ntls_secret = "cert"',
        "replicas = 3\nautoscale = { at_most = 3 }",
        'resources = { cpu = "2000m", cpu_limit = "2" }',
        'resources = { cpu = "0.5", cpu_limit = "500m", memory = "1.5Gi" }',
        'resources = { cpu = "64", cpu_limit = "", ephemeral_storage = "10Gi" }',
        'topology_keys = ["topology.kubernetes.io/zone", "example.com/rack_1"]',
        'min_ready_seconds = 10\npriority_class = "system-cluster-critical"',
    ],
)
def test_keys_that_fit_together_are_accepted(tmp_path: Path, keys: str) -> None:
    """Limits may be reached, and quantities may have any unit."""
    assert read_cluster(tmp_path, keys).target == "kubernetes"


def test_a_kubeconfigs_path_is_relative_to_pipeline_toml(tmp_path: Path) -> None:
    """Absolute paths and paths in the user's home stay."""
    assert read_cluster(tmp_path, 'kubeconfig = "keys/config"').cluster_address(
        tmp_path
    ).kubeconfig == str(tmp_path / "keys" / "config")
    assert (
        read_cluster(tmp_path, 'kubeconfig = "/etc/config"').cluster_address(tmp_path).kubeconfig
        == "/etc/config"
    )
    assert read_cluster(tmp_path, 'kubeconfig = "~/config"').cluster_address(
        tmp_path
    ).kubeconfig == str(Path.home() / "config")
    assert read_cluster(tmp_path).cluster_address(tmp_path).kubeconfig == ""
    assert (
        read_cluster(tmp_path, 'kubeconfig = "in-cluster"').cluster_address(tmp_path).kubeconfig
        == "in-cluster"
    )


@pytest.mark.parametrize(
    "line",
    [f"x = {'[' * 5000}", f"x = {'1' * 5000}"],
    ids=["nested as deep", "a number of thousands of digits"],
)
def test_a_file_that_makes_the_parser_fail_is_refused(tmp_path: Path, line: str) -> None:
    """The parser raises other errors than those for broken syntax."""
    assert "not TOML" in read_error(tmp_path, WHOLE + line).what


@pytest.mark.parametrize(
    "name",
    [
        "pictures/shop",
        (
            "/subscriptions/0a-1/resourceGroups/pictures/providers"
            "/Microsoft.ContainerService/managedClusters/shop"
        ),
    ],
)
def test_a_cluster_on_aks_takes_the_place_of_a_kubeconfig(tmp_path: Path, name: str) -> None:
    """By its group and name, or by its id."""
    found = read_cluster(tmp_path, f'aks = "{name}"').cluster_address(tmp_path)
    assert (found.kubeconfig, found.context) == (f"aks:{name}", "")


@pytest.mark.parametrize("keys", ['aks = "shop"', 'aks = "a/b"\ncontext = "c"'])
def test_other_names_of_a_cluster_on_aks_are_refused(tmp_path: Path, keys: str) -> None:
    """So is a context beside it."""
    assert read_problems(tmp_path, CLUSTER + keys)
