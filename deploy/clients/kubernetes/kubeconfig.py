"""Kubeconfig files, read as kubectl reads them: which context is meant, and what it speaks of.

Errors name files and entries, never what is in them: that may be a key or a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.clients.kubernetes.protocol import IN_CLUSTER
from deploy.errors import ClusterUnknown

CHOOSE = "set `kubeconfig` or `context` of the environment in pipeline.toml, or KUBECONFIG; `kubectl config get-contexts` lists them"
_KINDS = {"contexts": "context", "clusters": "cluster", "users": "user"}
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True)
class KubeconfigContext:
    """A context of a kubeconfig, with the cluster and the user that it speaks of.

    Attributes:
        files: the kubeconfig files, as in KUBECONFIG.
        name: the context's.
    """

    files: str
    name: str
    cluster: Mapping[str, Any] = field(repr=False)
    user: Mapping[str, Any] = field(repr=False)

    @property
    def login_program(self) -> str | None:
        """The program that logs in; None if none does."""
        login = self.user.get("exec")
        return str(login.get("command", "")) if isinstance(login, dict) else None


def choose_context(kubeconfig: str, context: str) -> KubeconfigContext | None:
    """The context that is meant; None means the account of the pod that this runs in.

    Args:
        kubeconfig: path of a kubeconfig, `in-cluster`, or empty for what kubectl would take.
        context: name of a context; empty for the current one.

    Raises:
        ClusterUnknown: there is no kubeconfig or context, or it cannot be used.
    """
    if kubeconfig == IN_CLUSTER and context:
        raise ClusterUnknown(
            f"the account of a pod has no context {context}",
            on=IN_CLUSTER,
            next="take out `context`, or name a kubeconfig",
        )
    files = [] if kubeconfig == IN_CLUSTER else _files(kubeconfig, context)
    return _Book.read(files).context(context) if files else None


def malformed_error(where: Path | str, why: str) -> ClusterUnknown:
    """The error of a kubeconfig that is not one."""
    return ClusterUnknown(
        f"the kubeconfig cannot be used: {why}",
        on=str(where),
        next="mend it, or have what made it write it anew",
    )


def _files(kubeconfig: str, context: str) -> list[Path]:
    """The kubeconfig files that are there; none if this runs in a pod and nothing is said of any."""
    named = kubeconfig or os.environ.get("KUBECONFIG", "")
    paths = [
        Path(part).expanduser() for part in (named or "~/.kube/config").split(os.pathsep) if part
    ]
    found = [path for path in paths if os.path.exists(path)]  # noqa: PTH110 - Path.exists raises where a folder is closed to us
    if found or (not named and not context and os.environ.get("KUBERNETES_SERVICE_HOST")):
        return found
    raise ClusterUnknown("there is no kubeconfig", on=", ".join(map(str, paths)), next=CHOOSE)


@dataclass(frozen=True)
class _Entry:
    """What a file says of one name."""

    content: Mapping[str, Any]
    folder: Path

    def missing(self) -> Iterator[Path]:
        """The files that it names and that cannot be read."""
        for key in _FILES:
            named = self.content.get(key)
            if isinstance(named, str) and named and f"{key}-data" not in self.content:
                path = self.folder / named
                if not os.access(path, os.R_OK):
                    yield path


@dataclass
class _Book:
    """Kubeconfig files, merged: of several entries of a name, and of several current contexts, the first one counts."""

    files: list[Path]
    current: str = ""
    entries: dict[str, dict[str, _Entry]] = field(
        default_factory=lambda: {kind: {} for kind in _KINDS}
    )

    @classmethod
    def read(cls, files: list[Path]) -> _Book:
        book = cls(files)
        for path in files:
            content = _content(path)
            book.current = book.current or str(content.get("current-context") or "")
            for kind, inner in _KINDS.items():
                for name, entry in _named(content, kind, inner, path):
                    book.entries[kind].setdefault(name, entry)
        return book

    @property
    def shown(self) -> str:
        return ", ".join(map(str, self.files))

    def context(self, wanted: str) -> KubeconfigContext:
        name = wanted or self.current
        if name not in self.entries["contexts"]:
            what = (
                f"the kubeconfig has no context {name}"
                if name
                else "the kubeconfig has no current context"
            )
            known = "\n".join(f"  {context}" for context in sorted(self.entries["contexts"]))
            raise ClusterUnknown(
                what, on=self.shown, next=CHOOSE, detail=known or "  it has no contexts at all"
            )
        said = self.entries["contexts"][name].content
        cluster = self._spoken_of("cluster", said, name)
        user = self._spoken_of("user", said, name)
        if not isinstance(cluster.get("server"), str):
            raise malformed_error(self.shown, f"the cluster of its context {name} has no server")
        return KubeconfigContext(os.pathsep.join(map(str, self.files)), name, cluster, user)

    def _spoken_of(self, what: str, said: Mapping[str, Any], context: str) -> Mapping[str, Any]:
        """The cluster or the user of a context; without its user the library would ask as nobody."""
        name = said.get(what)
        if not name and what == "user":
            return {}
        entry = self.entries[f"{what}s"].get(str(name))
        if entry is None:
            raise malformed_error(
                self.shown,
                f"its context {context} speaks of a {what} {name} that it does not describe",
            )
        for path in entry.missing():
            raise malformed_error(
                self.shown, f"its {what} {name} names a file that cannot be read, {path}"
            )
        return entry.content


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"the kubeconfig cannot be read ({error.strerror})"
        raise ClusterUnknown(
            what, on=str(path), next="see who owns it and who may read it"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError):
        # Without a cause: the parser quotes the file.
        raise malformed_error(path, "it is no YAML") from None
    if not isinstance(content, dict):
        raise malformed_error(
            path, "it is empty" if content is None else "it has not the form of one"
        )
    return content


def _named(
    content: Mapping[str, Any], kind: str, inner: str, path: Path
) -> Iterator[tuple[str, _Entry]]:
    entries = content.get(kind) or []
    for entry in entries if isinstance(entries, list) else [entries]:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("name"), str)
            or not isinstance(entry.get(inner) or {}, dict)
        ):
            raise malformed_error(path, f"its {kind} have not the form of such")
        yield entry["name"], _Entry(entry.get(inner) or {}, path.absolute().parent)
