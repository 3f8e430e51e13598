#!/usr/bin/env bash
# Shows how an agent remembers: runs an example twice, then searches the notes that it has stored.
# Usage: scripts/demo.sh TEA, where TEA is the command-line program to show.
set -euo pipefail

tea=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")/../examples" && pwd)

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export TEA_LTM_URL=sqlite:///./ltm.db

say() { printf '\n%s\n' "$*"; }
agent() {
    printf "$ tea run examples/%s -i '%s'\n" "$1" "$2"
    "$tea" run "$examples/$1" -i "$2"
}

say "1. The first run. The memory is empty, and the agent stores a note in it."
agent remember.yaml '{"topic": "green tea", "note": "Steep it at 80 degrees."}'

say "2. The second run, in another process. It still has the note of the first run."
agent remember.yaml '{"topic": "green tea", "note": "Two minutes are enough."}'

say "3. Full-text search in the notes."
agent search.yaml '{"query": "degrees"}'

say "The notes are in one SQLite file. For PostgreSQL, MariaDB or MySQL only the URL changes."
