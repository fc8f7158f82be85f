#!/bin/bash
# Builds influxd once, into a cache outside the tree, and prints its path as the last line.
#
# `go install module@version` refuses a module with a `replace`, so the wrapper module beside this
# script requires influxdb and repeats its one replace. The Flux library inside is Rust: it pins an
# old toolchain and denies warnings, so both are overridden below (RUSTFLAGS does not reach it).
# DTF_INFLUXD names an influxd to use instead. Needs go, cargo, rustup, cc; about 4 minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's|^\tgithub.com/influxdata/influxdb/v2 v||p' "$here/go.mod")
cache="${XDG_CACHE_HOME:-$HOME/.cache}/dtf/influxd/$version"
target="$cache/influxd"

if [ -n "${DTF_INFLUXD:-}" ]; then
    [ -x "$DTF_INFLUXD" ] || { echo "error: DTF_INFLUXD=$DTF_INFLUXD is not an executable file; unset it to use the cache" >&2; exit 2; }
    echo "influxd: DTF_INFLUXD says $DTF_INFLUXD; nothing to build" >&2
    echo "$DTF_INFLUXD"
    exit 0
fi
if [ -x "$target" ]; then
    echo "influxd $version: cached, nothing to build" >&2
    echo "$target"
    exit 0
fi
for tool in go cargo rustup cc; do
    command -v "$tool" >/dev/null || { echo "error: influxd needs $tool to build, and it is not on PATH; install it, or name an influxd with DTF_INFLUXD" >&2; exit 2; }
done

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9    # a second build waits for the first and then finds its result
[ ! -x "$target" ] || { echo "$target"; exit 0; }
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cp "$here/go.mod" "$here/go.sum" "$here/tools.go" "$work/"
cd "$work"

echo "influxd $version: [1/3] fetching Go modules from $(go env GOPROXY)" >&2
go mod download
echo "influxd $version: [2/3] building its pkg-config, which builds Flux with cargo" >&2
go build -mod=readonly -o "$work/pkg-config" github.com/influxdata/pkg-config
printf '#!/bin/sh\nexec "$@" --cap-lints allow\n' >"$work/rustc-wrapper"
chmod +x "$work/rustc-wrapper"
echo "influxd $version: [3/3] building influxd (about 4 minutes on two cores)" >&2
PKG_CONFIG="$work/pkg-config" RUSTUP_TOOLCHAIN=stable RUSTC_WORKSPACE_WRAPPER="$work/rustc-wrapper" \
    nice go build -mod=readonly -tags sqlite_foreign_keys,sqlite_json \
    -ldflags "-s -w -X main.version=v$version" \
    -o "$work/influxd" github.com/influxdata/influxdb/v2/cmd/influxd
mv "$work/influxd" "$target"
echo "influxd $version: built in ${SECONDS} s, $(du -m "$target" | cut -f1) MB" >&2
echo "$target"
