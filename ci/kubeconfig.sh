#!/bin/sh
# Writes the kubeconfig of a CI job, whose text is in KUBECONFIG_TEXT, and prints its path.
# If the variable is not set, it prints nothing.
set -eu
umask 077
kubeconfig=${RUNNER_TEMP:-${TMPDIR:-/tmp}}/kubeconfig
[ -n "${KUBECONFIG_TEXT:-}" ] || exit 0

printf '%s\n' "$KUBECONFIG_TEXT" >"$kubeconfig"
echo "$kubeconfig"
