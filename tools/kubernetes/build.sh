#!/bin/bash
# Builds a Kubernetes control plane and its etcd once, into a cache outside the tree, and prints the
# directory as the last line: kube-apiserver, kube-controller-manager, kube-scheduler, etcd, kustomize.
#
# `go install module@version` refuses a module with a `replace`, so the wrapper module beside this
# script requires k8s.io/kubernetes and replaces what it calls v0.0.0 by what was published.
# DTF_KUBERNETES names a directory with the five to use instead. Needs go; about 6 minutes on two
# cores the first time, 1.5 GB of Go's own caches, 310 MB of binaries.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's|^\tk8s.io/kubernetes v||p' "$here/go.mod")
directory="${XDG_CACHE_HOME:-$HOME/.cache}/dtf/kubernetes/$version"
programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kustomize)

missing_in() {
    local program
    for program in "${programs[@]}"; do
        [ -x "$1/$program" ] || echo "$program"
    done
}

if [ -n "${DTF_KUBERNETES:-}" ]; then
    missing=$(missing_in "$DTF_KUBERNETES" | tr '\n' ' ')
    [ -z "$missing" ] || { echo "error: DTF_KUBERNETES=$DTF_KUBERNETES lacks ${missing% }; unset it to use the cache" >&2; exit 2; }
    echo "kubernetes: DTF_KUBERNETES says $DTF_KUBERNETES; nothing to build" >&2
    echo "$DTF_KUBERNETES"
    exit 0
fi
if [ -z "$(missing_in "$directory")" ]; then
    echo "kubernetes $version: cached, nothing to build" >&2
    echo "$directory"
    exit 0
fi
command -v go >/dev/null || { echo "error: kubernetes needs go to build, and it is not on PATH; install it, or name a directory of binaries with DTF_KUBERNETES" >&2; exit 2; }

mkdir -p "$directory"
exec 9>"$directory/.lock"
flock 9    # a second build waits for the first and then finds its result
work=$(mktemp -d "$directory/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp "$here/go.mod" "$here/go.sum" "$here/tools.go" "$work/"
cd "$work"

minor=${version%.*}
stamp="-X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/component-base/version.gitMajor=${minor%.*} -X k8s.io/component-base/version.gitMinor=${minor#*.}"
mapfile -t todo < <(missing_in "$directory")
total=$((${#todo[@]} + 1))
if [ "$total" -gt 1 ]; then
    echo "kubernetes $version: [1/$total] fetching Go modules from $(go env GOPROXY)" >&2
    go mod download
fi
step=1
for program in "${todo[@]}"; do
    step=$((step + 1))
    case $program in
    etcd) package=go.etcd.io/etcd/server/v3 ;;
    kustomize) package=sigs.k8s.io/kustomize/kustomize/v5 ;;
    *) package=k8s.io/kubernetes/cmd/$program ;;
    esac
    echo "kubernetes $version: [$step/$total] building $program (${SECONDS} s so far)" >&2
    nice go build -mod=readonly -trimpath -ldflags "-s -w $stamp" -o "$work/$program" "$package"
    mv "$work/$program" "$directory/$program"
done
echo "kubernetes $version: built in ${SECONDS} s, $(du -cm "${programs[@]/#/$directory/}" | tail -1 | cut -f1) MB" >&2
echo "$directory"
