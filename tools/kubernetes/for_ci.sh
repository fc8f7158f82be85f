#!/bin/bash
# Sees to it that CI has a Kubernetes control plane when it needs one.
#
#   for_ci.sh prepare   build it, unless it is in the cache, or the adapter, its tests and deploy/ are
#                       those that passed here before (then the tests that need it say they were left out)
#   for_ci.sh passed    remember that they passed, by a digest of those files, beside the binaries
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
passed="${XDG_CACHE_HOME:-$HOME/.cache}/dtf/kubernetes/passed"
version=$(sed -n 's|^\tk8s.io/kubernetes v||p' "$here/go.mod")
digest=$(git ls-files -z -- dtf/adapters/kubernetes_\* dtf/ports/capacity.py dtf/settings/providers.py deploy/kubernetes tools/kubernetes \
    tests/kubernetes_\* tests/node_agent.py tests/contract/test_capacity_provider_contract.py tests/integration/test_kubernetes_\* |
    sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)

case ${1:-} in
prepare)
    if [ ! -x "$(dirname "$passed")/$version/kube-scheduler" ] && grep -qx "$digest" "$passed" 2>/dev/null; then
        echo "kubernetes $version: not in the cache, and what it is for has passed as it is; not built" >&2
        exit 0
    fi
    exec "$here/build.sh"
    ;;
passed)
    mkdir -p "$(dirname "$passed")"
    echo "$digest" >"$passed"
    ;;
*)
    echo "error: for_ci.sh takes prepare or passed, not '${1:-}'" >&2
    exit 2
    ;;
esac
