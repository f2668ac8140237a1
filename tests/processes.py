"""The variables of processes in pods, as a person with kubectl sees them."""

from __future__ import annotations

import shutil
import subprocess

from tests.missing import lacking


def read_pod_environment(namespace: str, pod: str) -> str:
    """Return the variables of a pod's first process, each as NAME=VALUE, with NUL after each."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        lacking("kubectl is not installed", "install it: Debian's package is kubernetes-client")
    command = (kubectl, "exec", "--namespace", namespace, pod, "--", "cat", "/proc/1/environ")
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()
