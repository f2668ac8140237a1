"""Kubeconfig files, read as kubectl reads them: the context with its cluster and user.

Errors name files and entries, never their values: a value may be a key or a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.clients.kubernetes.protocol import IN_CLUSTER
from deploy.errors import ClusterUnknown

CHOOSE = (
    "set `kubeconfig` or `context` of the environment in pipeline.toml, or KUBECONFIG; "
    "`kubectl config get-contexts` lists the contexts"
)
_KINDS = {"contexts": "context", "clusters": "cluster", "users": "user"}
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True)
class KubeconfigContext:
    """A context of a kubeconfig.

    Attributes:
        files: the kubeconfig files, as in KUBECONFIG.
        name: the context's name.
        cluster: the entry of the cluster that the context names.
        user: the entry of the user that the context names; empty if it names none.
    """

    files: str
    name: str
    cluster: Mapping[str, Any] = field(repr=False)
    user: Mapping[str, Any] = field(repr=False)

    @property
    def login_program(self) -> str | None:
        """The program that logs in; None if there is none."""
        login = self.user.get("exec")
        return str(login.get("command", "")) if isinstance(login, dict) else None

    def alone(self) -> dict[str, Any]:
        """Return a kubeconfig that has this context alone; its files are named absolutely."""
        return {
            "current-context": self.name,
            "contexts": [{"name": self.name, "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": dict(self.cluster)}],
            "users": [{"name": "u", "user": dict(self.user)}],
        }


def choose_context(kubeconfig: str, context: str) -> KubeconfigContext | None:
    """Return the chosen context; None means the account of the pod that this runs in.

    Args:
        kubeconfig: path of a kubeconfig, `in-cluster`, or empty for the files of kubectl.
        context: name of a context; empty for the current one.

    Raises:
        ClusterUnknown: there is no kubeconfig or context, or it cannot be used.
    """
    if kubeconfig == IN_CLUSTER and context:
        raise ClusterUnknown(
            f"the account of a pod has no context {context}",
            on=IN_CLUSTER,
            next="remove `context`, or name a kubeconfig",
        )
    files = [] if kubeconfig == IN_CLUSTER else _files(kubeconfig, context)
    return _Kubeconfig.read(files).context(context) if files else None


def malformed_error(where: Path | str, why: str) -> ClusterUnknown:
    """Return the error of a kubeconfig that is not valid."""
    return ClusterUnknown(
        f"the kubeconfig cannot be used: {why}",
        on=str(where),
        next="fix the file, or create it again with the program that wrote it",
    )


def _files(kubeconfig: str, context: str) -> list[Path]:
    """Return the kubeconfig files that exist; empty in a pod, if no setting names one."""
    setting = kubeconfig or os.environ.get("KUBECONFIG", "")
    names = (setting or "~/.kube/config").split(os.pathsep)
    # A user without a home folder has no file at `~`, which may stand there for a pod's account.
    paths = [Path(os.path.expanduser(name)) for name in names if name]  # noqa: PTH111 - Path's raises for such a user
    existing = [path for path in paths if os.path.exists(path)]  # noqa: PTH110 - Path.exists raises where a folder is not readable
    in_pod = not setting and not context and os.environ.get("KUBERNETES_SERVICE_HOST")
    if existing or in_pod:
        return existing
    raise ClusterUnknown("there is no kubeconfig", on=", ".join(map(str, paths)), next=CHOOSE)


@dataclass(frozen=True)
class _Entry:
    """An entry of a kubeconfig file.

    Attributes:
        content: the entry's values.
        folder: the folder of the file; paths in the entry are relative to it.
    """

    content: Mapping[str, Any]
    folder: Path

    def resolved(self) -> dict[str, Any]:
        """Return the content, with the paths of files as absolute ones."""
        return dict(self.content) | {key: str(path) for key, path in self._paths().items()}

    def unreadable_files(self) -> Iterator[Path]:
        """Yield the files that the entry names and that cannot be read."""
        for key, path in self._paths().items():
            is_used = self.content[key] and f"{key}-data" not in self.content
            if is_used and not os.access(path, os.R_OK):
                yield path

    def _paths(self) -> dict[str, Path]:
        """Return the paths of files in the entry, by key."""
        names = ((key, self.content.get(key)) for key in _FILES)
        return {key: self.folder / name for key, name in names if isinstance(name, str)}


@dataclass
class _Kubeconfig:
    """Merged kubeconfig files: the first entry of a name counts, and the first current context."""

    files: list[Path]
    current: str = ""
    entries: dict[str, dict[str, _Entry]] = field(
        default_factory=lambda: {kind: {} for kind in _KINDS}
    )

    @classmethod
    def read(cls, files: list[Path]) -> _Kubeconfig:
        merged = cls(files)
        for path in files:
            content = _content(path)
            merged.current = merged.current or str(content.get("current-context") or "")
            for kind, inner in _KINDS.items():
                for name, entry in _entries(content, kind, inner, path):
                    merged.entries[kind].setdefault(name, entry)
        return merged

    @property
    def display(self) -> str:
        return ", ".join(map(str, self.files))

    def context(self, wanted: str) -> KubeconfigContext:
        name = wanted or self.current
        if name not in self.entries["contexts"]:
            known = "\n".join(f"  {context}" for context in sorted(self.entries["contexts"]))
            raise ClusterUnknown(
                f"the kubeconfig has no {f'context {name}' if name else 'current context'}",
                on=self.display,
                next=CHOOSE,
                detail=known or "  it has no contexts at all",
            )
        content = self.entries["contexts"][name].content
        cluster = self._entry_of("cluster", content, name)
        user = self._entry_of("user", content, name)
        if not isinstance(cluster.get("server"), str):
            raise malformed_error(self.display, f"the cluster of its context {name} has no server")
        return KubeconfigContext(os.pathsep.join(map(str, self.files)), name, cluster, user)

    def _entry_of(self, kind: str, content: Mapping[str, Any], context: str) -> Mapping[str, Any]:
        """Return the entry of a context's cluster or user.

        An error is raised if it is missing: without the user, the library would log in as none.
        """
        name = content.get(kind)
        if not name and kind == "user":
            return {}
        entry = self.entries[f"{kind}s"].get(str(name))
        if entry is None:
            raise malformed_error(
                self.display, f"its context {context} names a {kind} {name} that it does not have"
            )
        for path in entry.unreadable_files():
            raise malformed_error(
                self.display, f"its {kind} {name} names a file that cannot be read, {path}"
            )
        return entry.resolved()


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClusterUnknown(
            f"the kubeconfig cannot be read ({error.strerror})",
            on=str(path),
            next="check its owner and its permissions",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError):
        # Without a cause: the parser quotes the file.
        raise malformed_error(path, "it is not valid YAML") from None
    if not isinstance(content, dict):
        why = "it is empty" if content is None else "it does not have the form of a kubeconfig"
        raise malformed_error(path, why)
    return content


def _entries(
    content: Mapping[str, Any], kind: str, inner: str, path: Path
) -> Iterator[tuple[str, _Entry]]:
    """Yield the entries of a kind with their names."""
    entries = content.get(kind) or []
    for entry in entries if isinstance(entries, list) else [entries]:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("name"), str)
            or not isinstance(entry.get(inner) or {}, dict)
        ):
            raise malformed_error(path, f"its {kind} do not have the right form")
        yield entry["name"], _Entry(entry.get(inner) or {}, path.absolute().parent)
