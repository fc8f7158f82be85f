#!/usr/bin/env bash
# Everything that reads the tree and judges it, in the order of its speed. Ends at the first fault.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "[lint] ruff"
ruff check .
ruff format --check --quiet . || { echo "error: not formatted; run: make format"; exit 1; }

echo "[lint] import-linter"
lint-imports --no-cache >/tmp/lint-imports.$$ 2>&1 || { cat /tmp/lint-imports.$$; rm -f /tmp/lint-imports.$$; exit 1; }
rm -f /tmp/lint-imports.$$

echo "[lint] buf lint and format"
buf lint
buf format --diff --exit-code proto

# Against the last release tag; before the first one, against the commit before this one.
against=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git rev-parse --verify --quiet HEAD~1 || true)
if [ -n "$against" ] && git cat-file -e "$against:buf.yaml" 2>/dev/null; then
  echo "[lint] buf breaking against $against"
  baseline=$(mktemp -d)
  trap 'rm -rf "$baseline"' EXIT
  git archive "$against" proto buf.yaml | tar -x -C "$baseline"
  buf breaking --against "$baseline"
fi

echo "[lint] stubs are what proto/ says"
stubs=$(mktemp -d)
cp -r proto buf.yaml buf.gen.yaml "$stubs"
(
  cd "$stubs"
  buf generate
  python -m grpc_tools.protoc -Iproto --grpc_python_out=. proto/dtf/api/v1/*_service.proto
  rm -f dtf/api/v1/{common,events,findings,scaling,snapshot,state}_pb2_grpc.py*
)
if ! diff -r -x __init__.py -x __pycache__ "$stubs/dtf/api/v1" dtf/api/v1; then
  rm -rf "$stubs"
  echo "error: dtf/api/v1 differs from proto/; run: make proto"
  exit 1
fi
rm -rf "$stubs"
