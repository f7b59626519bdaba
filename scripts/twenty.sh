#!/bin/bash
# The tests of the object model N times in a row (default 20) as they are, and N times with asyncio's debug mode in
# Python's development mode; warnings are errors always (pyproject.toml). Most of a test is waiting, so several run at
# the same time. Usage: scripts/twenty.sh [N [paths or arguments of pytest …]]
#
# One line for each run in .cache/twenty/runs.txt, by commit: what was broken off goes on where it was. The output of
# runs that failed is kept beside it. Exit status: whether all passed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit
BIN=${BIN:-.venv/bin}
TOGETHER=${TOGETHER:-4}
FOLDER=${FOLDER:-.cache/twenty}
count=${1:-20}
shift $(($# > 0 ? 1 : 0))
what=("$@")
[ ${#what[@]} -gt 0 ] || what=(tests/conformance tests/media)
mkdir -p "$FOLDER"
runs=$FOLDER/runs.txt
touch "$runs"
commit=$(git rev-parse --short HEAD)
git diff --quiet HEAD -- msrecd tests || commit=$commit-changed-$(git diff HEAD -- msrecd tests | sha256sum | cut -c1-8)
key="$commit ${what[*]}:"
failed=0
export PYTHONWARNINGS=error  # the variables reach the processes that pytest starts, as arguments would not
for run in $(seq "$count"); do
    for mode in plain debug; do
        name="$key $mode run $run of $count"
        if line=$(grep -F "$name " "$runs"); then
            echo "$line"
            [[ $line == *" passed in "* ]] || failed=$((failed + 1))
            continue
        fi
        unset PYTHONASYNCIODEBUG PYTHONDEVMODE
        [ "$mode" = plain ] || export PYTHONASYNCIODEBUG=1 PYTHONDEVMODE=1
        log=$FOLDER/$commit-$mode-$run.txt
        began=$SECONDS
        if "$BIN"/python -m pytest -q -n "$TOGETHER" --dist loadscope "${what[@]}" >"$log" 2>&1 </dev/null; then
            state=passed
            last=$(tail -n 1 "$log")
            rm -f "$log"
        else
            state=FAILED
            last="$(tail -n 1 "$log"); $(grep -E '^(FAILED|ERROR)' "$log" | cut -c1-200 | tr '\n' ';')"
            failed=$((failed + 1))
        fi
        echo "$name $state in $((SECONDS - began)) s: $last" | tee -a "$runs"
    done
done
echo "$((2 * count - failed)) of $((2 * count)) runs passed"
[ "$failed" = 0 ]
