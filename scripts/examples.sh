#!/usr/bin/env bash
# Makes the clients of examples/ ready to run, as their READMEs say, in a copy
# of proto/ and the example within the folder of tools: once for each state of
# these. Prints the example's folder in that copy.
#
#   scripts/examples.sh python
#   scripts/examples.sh go
#
# scripts/tools.sh test installs what it needs.

set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
tools="${ENTENTE_TOOLS_DIR:-${HOME:?set HOME or ENTENTE_TOOLS_DIR}/.cache/entente-tools}"
PATH="$tools/bin:$PATH"

die() {
  echo "examples.sh: $*" >&2
  exit 1
}

need() {
  command -v "$1" >/dev/null 2>&1 || die "there is no $1: scripts/tools.sh test installs it"
}

language="${1:-}"
case "$language" in
  python) need "$tools/python/bin/python" ;;
  go) for tool in go buf protoc-gen-go protoc-gen-go-grpc; do need "$tool"; done ;;
  *) die "say which: python, go" ;;
esac

# What is generated, or belongs to a developer's trying out, is left behind.
sources() {
  cd "$root"
  find proto "examples/$language" \( -name gen -o -name entente -path 'examples/python/*' -o -name .venv -o -name __pycache__ \
    -o -name go-tour \) -prune -o -type f -print0 | sort -z
}

version="$({
  sources | (cd "$root" && xargs -0 sha256sum)
  cat "$tools"/versions/{python,protoc-gen-go,protoc-gen-go-grpc,buf} 2>/dev/null || true
} | sha256sum | cut -c 1-16)"
cache="$tools/examples"
ready="$cache/$language-$version"
mkdir -p "$cache"

# Two tests may start at once.
exec 9>"$cache/$language.lock"
flock 9
if [ ! -d "$ready" ]; then
  # What nobody used for a month goes.
  find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf {} +
  making="$cache/$language.making"
  rm -rf "$making"
  mkdir -p "$making"
  sources | (cd "$root" && xargs -0 cp --parents -t "$making")
  cd "$making/examples/$language"
  case "$language" in
    python)
      # shellcheck disable=SC2046 # Names of protos have no spaces.
      "$tools/python/bin/python" -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. \
        $(cd ../../proto && find entente -name '*.proto') >&2
      ;;
    go)
      buf generate >&2
      GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -o go-tour . >&2
      ;;
  esac
  mv "$making" "$ready"
fi
touch "$ready"
echo "$ready/examples/$language"
