#!/bin/bash
# The tests of the object model N times in a row (default 20), every second time with asyncio's debug mode; warnings are
# errors always (pyproject.toml). Usage: scripts/twenty.sh [N [paths or arguments of pytest …]]
# One line for each run; the output of those that failed is kept in .cache/twenty/. Exit status: whether all passed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit
BIN=${BIN:-.venv/bin}
count=${1:-20}
shift $(($# > 0 ? 1 : 0))
what=("$@")
[ ${#what[@]} -gt 0 ] || what=(tests/conformance tests/media)
mkdir -p .cache/twenty
failed=0
for run in $(seq "$count"); do
    log=.cache/twenty/run-$run.txt
    mode=()
    name=plain
    if [ $((run % 2)) = 1 ]; then  # the development mode has asyncio's debug mode and resource warnings
        mode=(-X dev)
        name=PYTHONASYNCIODEBUG=1
        export PYTHONASYNCIODEBUG=1
    else
        unset PYTHONASYNCIODEBUG
    fi
    began=$SECONDS
    if "$BIN"/python "${mode[@]}" -W error -m pytest -q "${what[@]}" >"$log" 2>&1; then
        state=passed
    else
        state=FAILED
        failed=$((failed + 1))
    fi
    echo "run $run of $count, $name: $state in $((SECONDS - began)) s: $(tail -n 1 "$log")"
    if [ "$state" = FAILED ]; then
        grep -E '^(FAILED|ERROR)' "$log" | cut -c1-300
    else
        rm -f "$log"
    fi
done
echo "$((count - failed)) of $count runs passed"
[ "$failed" = 0 ]
