#!/usr/bin/env bash
# `pip install .` and `pipx install --system-site-packages .` in fresh environments; then each checks a configuration and
# records two seconds from virtual devices. Fetches packages from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file ]]; then printf '%s\0' "$file"; fi
done | xargs -0 cp --parents -t "$work/source"

fail() {
    printf 'pip-test: error: %s\n' "$1" >&2
    exit 1
}
quietly() { "$@" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2 && fail "$*"; }; }

# Runs what was installed, away from the checkout.
try() {
    local program=$1 config=$work/try/msrecd.toml
    rm -rf "$work/try"
    mkdir -p "$work/try/recordings" "$work/try/state"
    cat >"$config" <<TOML
config_version = 1
[device]
id = "pip-test"
[devices]
virtual = true
[storage]
path = "$work/try/recordings"
state_path = "$work/try/state"
[[recorder]]
name = "cam0"
video = true
[[recorder.schedule]]
start = "0 6 * * *"
stop = "sunset"
[location]
latitude = 52.5
longitude = 13.4
TOML
    cd "$work/try"
    quietly "$program" --version
    quietly "$program" check-config --config "$config"
    quietly "$program" schedule --config "$config"
    quietly "$program" record --config "$config" --video '{"width": 320, "height": 240}' --duration 2s "$work/try/out.mp4"
    [[ -s $work/try/out.mp4 ]] || fail "$program recorded nothing"
    cd - >/dev/null
}

"$python" -m venv "$work/plain"
quietly "$work/plain/bin/pip" install -q --disable-pip-version-check "$work/source"
try "$work/plain/bin/msrecd"
echo "pip-test: pip install . works with $("$python" --version)"

"$python" -m venv "$work/pipx"
quietly "$work/pipx/bin/pip" install -q --disable-pip-version-check pipx
export PIPX_HOME=$work/home PIPX_BIN_DIR=$work/bin PIPX_MAN_DIR=$work/man
quietly "$work/pipx/bin/pipx" install --system-site-packages --python "$(command -v "$python")" "$work/source"
try "$work/bin/msrecd"
echo "pip-test: pipx install --system-site-packages . works"
