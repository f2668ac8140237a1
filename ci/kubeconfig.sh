#!/bin/sh
# Writes the kubeconfig of a CI job and prints its path. Its sources are two variables:
#   KUBECONFIG_TEXT  the text of a kubeconfig
#   AKS_CLUSTERS     GROUP/NAME of clusters on AKS, separated by spaces; `az` is logged in
# If neither is set, it prints nothing.
set -eu
umask 077
kubeconfig=${RUNNER_TEMP:-${AGENT_TEMPDIRECTORY:-${TMPDIR:-/tmp}}}/kubeconfig
[ -n "${KUBECONFIG_TEXT:-}${AKS_CLUSTERS:-}" ] || exit 0

printf '%s\n' "${KUBECONFIG_TEXT:-}" >"$kubeconfig"
if [ -n "${AKS_CLUSTERS:-}" ]; then
    command -v kubelogin >/dev/null || sudo az aks install-cli --only-show-errors >&2
    for cluster in $AKS_CLUSTERS; do
        az aks get-credentials --only-show-errors --file "$kubeconfig" \
            --resource-group "${cluster%%/*}" --name "${cluster#*/}" >&2
    done
    kubelogin convert-kubeconfig --login azurecli --kubeconfig "$kubeconfig" >&2
fi
echo "$kubeconfig"
