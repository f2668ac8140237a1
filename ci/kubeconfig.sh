#!/bin/sh
# Writes the kubeconfig of a CI job and prints its path; prints nothing where neither of these is set:
#   KUBECONFIG_TEXT  a whole kubeconfig
#   AKS_CLUSTERS     GROUP/NAME of clusters on Azure, with spaces between them, for whom `az` is logged in as
set -eu
umask 077
kubeconfig=${RUNNER_TEMP:-${AGENT_TEMPDIRECTORY:-${TMPDIR:-/tmp}}}/kubeconfig
[ -n "${KUBECONFIG_TEXT:-}${AKS_CLUSTERS:-}" ] || exit 0

printf '%s\n' "${KUBECONFIG_TEXT:-}" >"$kubeconfig"
if [ -n "${AKS_CLUSTERS:-}" ]; then
    command -v kubelogin >/dev/null || sudo az aks install-cli --only-show-errors >&2
    for cluster in $AKS_CLUSTERS; do
        az aks get-credentials --only-show-errors --resource-group "${cluster%%/*}" --name "${cluster#*/}" --file "$kubeconfig" >&2
    done
    kubelogin convert-kubeconfig --login azurecli --kubeconfig "$kubeconfig" >&2
fi
echo "$kubeconfig"
