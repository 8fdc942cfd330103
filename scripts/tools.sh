#!/usr/bin/env bash
# Installs what `make test` and `make lint` need on a Debian or Ubuntu machine,
# each thing only where it is missing. Says one line for each thing it
# installs, and nothing when all is there.
#
#   scripts/tools.sh test    # C toolchain, PostgreSQL server, nsd, grpcurl, an
#                            # S3-compatible server; for the examples Python
#                            # with its packages, Go, buf
#   scripts/tools.sh lint    # rustfmt, clippy, buf, cargo-deny
#   scripts/tools.sh mutants # cargo-mutants, and Python with tree-sitter
#
# What isn't a Debian package goes into a folder that clones share:
# $ENTENTE_TOOLS_DIR, else ~/.cache/entente-tools. Its bin/ must come first in
# PATH (the Makefile sees to that). A grpcurl or a cargo-deny that is already in
# PATH is used as it is. Rust itself is the one thing that must be there before.

set -euo pipefail

readonly GRPCURL_VERSION=1.9.4
# The last one that Go 1.19 builds, which is what Debian 12 packages.
readonly GRPCURL_VERSION_OLD_GO=1.8.9
readonly BUF_VERSION=1.75.0
# What examples/go/go.mod asks for; both are built by Go 1.19 too.
readonly PROTOC_GEN_GO_VERSION=1.33.0
readonly PROTOC_GEN_GO_GRPC_VERSION=1.5.1
readonly GO_OLDEST=1.19
# An S3-compatible server over a folder; it asks for a newer Go than Debian 12 has, which Go fetches itself from 1.21 on.
readonly VERSITYGW_VERSION=1.8.0
readonly CARGO_DENY_VERSION=0.20.2
readonly CARGO_DENY_OLDEST=0.18.0
readonly CARGO_MUTANTS_VERSION=27.1.0
readonly TREE_SITTER_VERSION=0.26.1
readonly TREE_SITTER_RUST_VERSION=0.24.2
readonly POSTGRES_OLDEST=15

root="$(cd "$(dirname "$0")/.." && pwd)"
tools="${ENTENTE_TOOLS_DIR:-${HOME:?set HOME or ENTENTE_TOOLS_DIR}/.cache/entente-tools}"
own_bin="$tools/bin"
PATH="$own_bin:$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

die() {
  echo "tools.sh: $*" >&2
  exit 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# at_least FOUND OLDEST: whether version FOUND is OLDEST or newer.
at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Runs a command, and shows what it printed only when it fails. It does not hand
# on the lock: a server that a package starts would hold it for good.
quietly() {
  local log
  log="$(mktemp)"
  if ! "$@" >"$log" 2>&1 </dev/null 9>&-; then
    cat "$log" >&2
    rm -f "$log"
    die "failed: $*"
  fi
  rm -f "$log"
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    have sudo || die "'$*' needs root, and there is no sudo"
    sudo "$@"
  fi
}

# What the folder of tools holds of a tool, by the version written beside it:
# a grpcurl that `go install` built does not know its own version.
installed_version() {
  cat "$tools/versions/$1" 2>/dev/null || true
}

record_version() {
  mkdir -p "$tools/versions"
  echo "$2" >"$tools/versions/$1"
}

# --- Debian packages -------------------------------------------------------

lists_are_fresh=no

apt_install() {
  have apt-get || die "missing here, and no apt-get to install them: $*"
  echo "installing Debian packages: $*"
  if [ "$lists_are_fresh" = no ]; then
    quietly as_root apt-get update -q
    lists_are_fresh=yes
  fi
  quietly as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "$@"
}

# The major version of the newest PostgreSQL server here; 0 if there is none.
postgres_major() {
  local found=0 major binary
  for binary in /usr/lib/postgresql/*/bin/postgres "$(command -v postgres || true)"; do
    if [ -x "$binary" ] && [ -x "${binary%/*}/initdb" ]; then
      major="$("$binary" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')"
      [ "$major" -le "$found" ] || found="$major"
    fi
  done
  echo "$found"
}

debian_packages() {
  local missing=()
  have curl || missing+=(curl)
  [ -s /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
  { have cc && have c++ && have make; } || missing+=(build-essential)
  have cmake || missing+=(cmake)
  { have pkg-config || have pkgconf; } || missing+=(pkg-config)
  [ "${#missing[@]}" -eq 0 ] || apt_install "${missing[@]}"
}

postgres() {
  if [ "$(postgres_major)" -eq 0 ]; then
    apt_install postgresql
  fi
  local major
  major="$(postgres_major)"
  [ "$major" -ge "$POSTGRES_OLDEST" ] ||
    die "found PostgreSQL $major, but the tests need $POSTGRES_OLDEST or newer"
}

name_server() {
  { have nsd || [ -x /usr/sbin/nsd ]; } && return
  # Only the program: the service that the package starts would want port 53.
  apt_install nsd
}

# --- Other tools -----------------------------------------------------------

rust() {
  have cargo || die "there is no cargo: install Rust with rustup first (https://rustup.rs)"
}

rust_components() {
  local missing=()
  cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
  cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
  [ "${#missing[@]}" -eq 0 ] && return
  have rustup || die "missing here, and no rustup to add them: ${missing[*]}"
  echo "installing Rust components: ${missing[*]}"
  quietly rustup component add "${missing[@]}"
}

go_version() {
  go env GOVERSION | sed -E 's/^go([0-9.]+).*/\1/'
}

golang() {
  have go || apt_install golang-go
  at_least "$(go_version)" "$GO_OLDEST" ||
    die "found Go $(go_version), but the examples need $GO_OLDEST or newer"
}

grpcurl() {
  local at
  at="$(type -P grpcurl || true)"
  [ -n "$at" ] && [ "$at" != "$own_bin/grpcurl" ] && return

  golang
  # From 1.21 on, Go fetches the newer Go that a module asks for.
  local version="$GRPCURL_VERSION"
  at_least "$(go_version)" 1.21 || version="$GRPCURL_VERSION_OLD_GO"
  [ -n "$at" ] && [ "$(installed_version grpcurl)" = "$version" ] && return

  echo "installing grpcurl $version"
  quietly env GOBIN="$own_bin" GOFLAGS= GOTOOLCHAIN=auto CGO_ENABLED=0 \
    go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$version"
  record_version grpcurl "$version"
}

versitygw() {
  [ -x "$own_bin/versitygw" ] && [ "$(installed_version versitygw)" = "$VERSITYGW_VERSION" ] && return
  golang

  echo "installing versitygw $VERSITYGW_VERSION"
  quietly env GOBIN="$own_bin" GOFLAGS= GOTOOLCHAIN=auto CGO_ENABLED=0 \
    go install "github.com/versity/versitygw/cmd/versitygw@v$VERSITYGW_VERSION"
  record_version versitygw "$VERSITYGW_VERSION"
}

buf() {
  [ -x "$own_bin/buf" ] && [ "$(installed_version buf)" = "$BUF_VERSION" ] && return
  have npm || apt_install nodejs npm

  echo "installing buf $BUF_VERSION"
  quietly npm install --prefix "$tools/node" --no-audit --no-fund --no-save \
    --include=optional "@bufbuild/buf@$BUF_VERSION"
  ln -sfn ../node/node_modules/.bin/buf "$own_bin/buf"
  "$own_bin/buf" --version >/dev/null 2>&1 || die "the buf that npm installed does not start"
  record_version buf "$BUF_VERSION"
}

# go_plugin NAME MODULE VERSION: a plugin of protoc's and buf's that writes Go.
go_plugin() {
  [ -x "$own_bin/$1" ] && [ "$(installed_version "$1")" = "$3" ] && return
  golang

  echo "installing $1 $3"
  quietly env GOBIN="$own_bin" GOFLAGS= GOTOOLCHAIN=auto CGO_ENABLED=0 \
    go install "$2/$1@v$3"
  record_version "$1" "$3"
}

# The packages of the Python example, in an environment of their own.
python_packages() {
  have python3 || apt_install python3 python3-venv
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  local wanted="$root/examples/python/requirements.txt" version
  version="$(python3 --version) $(sha256sum <"$wanted" | cut -c 1-16)"
  [ -x "$tools/python/bin/python" ] && [ "$(installed_version python)" = "$version" ] && return

  echo "installing the packages of examples/python"
  rm -rf "$tools/python"
  quietly python3 -m venv "$tools/python"
  quietly "$tools/python/bin/pip" install --disable-pip-version-check --only-binary :all: -r "$wanted"
  record_version python "$version"
}

cargo_deny() {
  if have cargo-deny; then
    local found
    found="$(cargo-deny --version | sed -E 's/^[^0-9]*([0-9.]+).*/\1/')"
    at_least "$found" "$CARGO_DENY_OLDEST" && return
  fi

  echo "installing cargo-deny $CARGO_DENY_VERSION (some minutes)"
  # Unoptimised: it builds in a fraction of the time, and runs for seconds.
  quietly env CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install --locked --force --debug --root "$tools" "cargo-deny@$CARGO_DENY_VERSION"
}

cargo_mutants() {
  # Another version has other mutants, so it must be this one.
  if have cargo-mutants; then
    [ "$(cargo mutants --version | sed -E 's/^[^0-9]*([0-9.]+).*/\1/')" != "$CARGO_MUTANTS_VERSION" ] || return 0
  fi

  echo "installing cargo-mutants $CARGO_MUTANTS_VERSION (some minutes)"
  quietly env CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install --locked --force --debug --root "$tools" "cargo-mutants@$CARGO_MUTANTS_VERSION"
}

# What scripts/mutants_in_one.py reads Rust with.
tree_sitter() {
  have python3 || apt_install python3 python3-venv
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  local version
  version="$(python3 --version) $TREE_SITTER_VERSION $TREE_SITTER_RUST_VERSION"
  [ -x "$tools/mutants/bin/python" ] && [ "$(installed_version mutants)" = "$version" ] && return

  echo "installing tree-sitter $TREE_SITTER_VERSION"
  rm -rf "$tools/mutants"
  quietly python3 -m venv "$tools/mutants"
  quietly "$tools/mutants/bin/pip" install --disable-pip-version-check --only-binary :all: \
    "tree-sitter==$TREE_SITTER_VERSION" "tree-sitter-rust==$TREE_SITTER_RUST_VERSION"
  record_version mutants "$version"
}

# --- Groups ----------------------------------------------------------------

[ "$#" -gt 0 ] || die "say which group to install: test, lint, mutants"
for group in "$@"; do
  case "$group" in
    test | lint | mutants) ;;
    *) die "there is no group '$group': test, lint, mutants" ;;
  esac
done

# Two clones may start at once.
mkdir -p "$own_bin"
exec 9>"$tools/lock"
flock 9

rust
debian_packages
for group in "$@"; do
  case "$group" in
    test)
      postgres
      name_server
      grpcurl
      golang
      versitygw
      go_plugin protoc-gen-go google.golang.org/protobuf/cmd "$PROTOC_GEN_GO_VERSION"
      go_plugin protoc-gen-go-grpc google.golang.org/grpc/cmd "$PROTOC_GEN_GO_GRPC_VERSION"
      buf
      python_packages
      ;;
    lint)
      rust_components
      buf
      cargo_deny
      ;;
    mutants)
      cargo_mutants
      tree_sitter
      ;;
  esac
done
