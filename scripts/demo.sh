#!/usr/bin/env bash
# Shows what an agent's memory is: runs an example twice, then searches what it remembered.
# Usage: scripts/demo.sh TEA, where TEA is the command-line program to show.
set -euo pipefail

tea=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")/../examples" && pwd)

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export LTM_URL=sqlite:///./ltm.db

say() { printf '\n%s\n' "$*"; }
agent() {
    printf "$ tea run examples/%s -i '%s'\n" "$1" "$2"
    "$tea" run "$examples/$1" -i "$2"
}

say "1. A first run. The memory is empty, the agent stores a note in it."
agent remember.yaml '{"topic": "green tea", "note": "Steep it at 80 degrees."}'

say "2. A second run, another process. It still knows what the first was told."
agent remember.yaml '{"topic": "green tea", "note": "Two minutes are enough."}'

say "3. Full-text search in what is remembered."
agent search.yaml '{"query": "degrees"}'

say "All of it is in one SQLite file; for PostgreSQL, MariaDB or MySQL only the URL changes."
