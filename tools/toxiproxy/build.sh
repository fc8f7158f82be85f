#!/bin/bash
# Builds toxiproxy once, into a cache outside the tree, and prints its path as the last line.
#
# It cuts, delays and mutes connections in `make chaos`. DTF_TOXIPROXY names one to use instead.
# Needs go; about 15 s.
set -euo pipefail
version=2.5.0
target="${XDG_CACHE_HOME:-$HOME/.cache}/dtf/bin/toxiproxy-server"

if [ -n "${DTF_TOXIPROXY:-}" ]; then
    [ -x "$DTF_TOXIPROXY" ] || { echo "error: DTF_TOXIPROXY=$DTF_TOXIPROXY is not an executable file; unset it to use the cache" >&2; exit 2; }
    echo "toxiproxy: DTF_TOXIPROXY says $DTF_TOXIPROXY; nothing to build" >&2
    echo "$DTF_TOXIPROXY"
    exit 0
fi
if [ -x "$target" ]; then
    echo "toxiproxy $version: cached, nothing to build" >&2
    echo "$target"
    exit 0
fi
command -v go >/dev/null || { echo "error: toxiproxy needs go to build, and it is not on PATH; install it, or name a toxiproxy with DTF_TOXIPROXY" >&2; exit 2; }
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$(dirname "$target")/toxiproxy.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "toxiproxy $version: fetching from $(go env GOPROXY) and building" >&2
GOBIN="$work" nice go install "github.com/Shopify/toxiproxy/v2/cmd/server@v$version"
mv "$work/server" "$target"
echo "toxiproxy $version: built in ${SECONDS} s" >&2
echo "$target"
