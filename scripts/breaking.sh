#!/usr/bin/env bash
# Checks that the protos break nothing that the last release promised. A release
# is a tag v1.2.3; the last is the highest of those that HEAD descends from.

set -euo pipefail
cd "$(dirname "$0")/.."

last="$(git tag --list 'v[0-9]*' --merged HEAD --sort=-version:refname 2>/dev/null |
  grep -Ex 'v[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 || true)"

if [ -z "$last" ]; then
  echo "buf breaking: skipped, there is no release yet to compare with"
  exit 0
fi

echo "buf breaking: comparing with $last"
buf breaking --against ".git#tag=$last"
