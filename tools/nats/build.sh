#!/bin/bash
# Builds the `nats` command once, into a cache outside the tree, and prints its path as the last line.
# DTF_NATS_CLI names one to use instead. Needs go; about a minute.
set -euo pipefail
version=0.5.1
cache="${XDG_CACHE_HOME:-$HOME/.cache}/dtf/bin"
target="$cache/nats"

if [ -n "${DTF_NATS_CLI:-}" ]; then
    [ -x "$DTF_NATS_CLI" ] || { echo "error: DTF_NATS_CLI=$DTF_NATS_CLI is not an executable file; unset it to use the cache" >&2; exit 2; }
    echo "nats: DTF_NATS_CLI says $DTF_NATS_CLI; nothing to build" >&2
    echo "$DTF_NATS_CLI"
    exit 0
fi
if [ -x "$target" ]; then
    echo "nats: cached, nothing to build" >&2
    echo "$target"
    exit 0
fi
command -v go >/dev/null || { echo "error: the nats command needs go to build, and it is not on PATH; install it, or name a nats with DTF_NATS_CLI" >&2; exit 2; }
mkdir -p "$cache"
echo "nats $version: go install into $cache" >&2
GOBIN="$cache" go install "github.com/nats-io/natscli/nats@v$version"
echo "$target"
