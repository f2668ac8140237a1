#!/bin/sh
# Creates a Kubernetes cluster of one node on this machine, by kind (0.27 or later) and Docker.
# Prints the path of its kubeconfig:
#   export KUBECONFIG=$(ci/cluster.sh)
# The node pulls from the registry on 127.0.0.1:5000, as releases expect.
# Running the script again is safe. `kind delete cluster --name twinship` deletes the cluster.
# Source: kind's documentation, "Local Registry".
set -eu
umask 077
name=twinship
root=$(cd "$(dirname "$0")/.." && pwd)
kubeconfig=$root/.twinship/kind.kubeconfig
mkdir -p "$root/.twinship"

# Use the registry that runs, such as that of `invoke up`. Otherwise start one.
# `invoke down` does not know the new one, so it stays for the cluster.
registry=$(docker ps --format '{{.Names}} {{.Ports}}' |
    awk '/(127\.0\.0\.1|0\.0\.0\.0):5000->5000/ { print $1; exit }')
if [ -z "$registry" ]; then
    registry=kind-registry
    docker run --detach --restart always --publish 127.0.0.1:5000:5000 --name "$registry" \
        registry:3.0.0@sha256:6c5666b861f3505b116bb9aa9b25175e71210414bd010d92035ff64018f9457e >&2
fi

kind get clusters | grep -qx "$name" ||
    kind create cluster --name "$name" --kubeconfig "$kubeconfig" --wait 5m >&2
kind get kubeconfig --name "$name" >"$kubeconfig"

# On a node, 127.0.0.1 is the node itself. So pulls from it go to the registry's container.
hosts=/etc/containerd/certs.d/127.0.0.1:5000
for node in $(kind get nodes --name "$name"); do
    docker exec "$node" mkdir -p "$hosts"
    echo "[host.\"http://$registry:5000\"]" |
        docker exec -i "$node" cp /dev/stdin "$hosts/hosts.toml"
done
format='{{json .NetworkSettings.Networks.kind}}'
if [ "$(docker inspect --format "$format" "$registry")" = null ]; then
    docker network connect kind "$registry"
fi
echo "$kubeconfig"
