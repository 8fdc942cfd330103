#!/usr/bin/env bash
# Mutation testing of src/access/: changes its source in small ways, one at a
# time, and says which of them no test notices. What is to be thought of those
# that survive stands in docs/testing.md.
#
#   scripts/mutants.sh             # all of them, in one build: hours
#   scripts/mutants.sh --only RE   # those whose name a regular expression finds,
#                                  # and other options of mutants_in_one.py
#   scripts/mutants.sh --listed F  # those whose names stand in a file
#   scripts/mutants.sh in REF      # those in lines that differ from a commit, a
#   scripts/mutants.sh in FILE.rs  # build each; or those of one file
#   scripts/mutants.sh 2/7         # a part, a build each, from 0/7 on
#
# What came of it is in target/mutants/report.txt, or in target/mutants.out.
# It fails if there are survivors that docs/testing.md doesn't explain.

set -euo pipefail
cd "$(dirname "$0")/.."

explained="docs/testing.md"
tools="${ENTENTE_TOOLS_DIR:-${HOME:?set HOME or ENTENTE_TOOLS_DIR}/.cache/entente-tools}"
args=(--no-shuffle --colors=never --output target)

case "${1:-all}" in
  all) exec "$tools/mutants/bin/python" scripts/mutants_in_one.py ;;
  --*) exec "$tools/mutants/bin/python" scripts/mutants_in_one.py "$@" ;;
  in)
    what="${2:?say a commit or a file}"
    if [ -f "$what" ]; then
      args+=(--re "^${what//./\\.}:")
    else
      mkdir -p target
      git diff "$what" -- src/access >target/mutants.diff
      [ -s target/mutants.diff ] || { echo "nothing in src/access differs from $what"; exit 0; }
      args+=(--in-diff target/mutants.diff)
    fi
    ;;
  */*) args+=(--shard "$1") ;;
  *)
    echo "mutants.sh: there is no part '$1'" >&2
    exit 1
    ;;
esac

# Fewer sequences: a mutant that matters is found early, or by its own tests.
export ENTENTE_MODEL_SEQUENCES="${ENTENTE_MODEL_SEQUENCES:-80}"
status=0
cargo mutants "${args[@]}" || status=$?
# 0: all caught; 2: some were missed; 3: some ran too long, which is caught too.
# Anything else: it couldn't run, or tests fail without mutants.
case "$status" in
  0 | 3) exit 0 ;;
  2) ;;
  *) exit "$status" ;;
esac

# In a table a bar is written with a backslash before it.
text_of_explained="$(sed 's/\\|/|/g' "$explained")"
unexplained=0
while IFS= read -r mutant; do
  # Lines move: a survivor is known by its file and what was changed.
  text="$(sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' <<<"$mutant")"
  if ! grep -qF -- "\`$text" <<<"$text_of_explained"; then
    echo "survived, and not explained: $mutant"
    unexplained=1
  fi
done <target/mutants.out/missed.txt
exit "$unexplained"
