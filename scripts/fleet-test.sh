#!/usr/bin/env bash
# Try many devices for real: two sites, a RabbitMQ cluster of three, PostgreSQL, in network namespaces of one machine; and
# `msrecd check-broker` against other brokers. Needs root (or sudo) and a Debian mirror; ActiveMQ Artemis comes from Maven
# Central where there is a `mvn`. The Debian 13 tree is kept in .cache/trixie-fleet (1.5 GB). Arguments go to pytest.
#
# The servers run in that tree, in namespaces of mounts, processes and networks that end with this script: no port, no
# service and no process of the machine is touched. MSRECD_CHAOS_S=600 is how long nodes are killed and lines are cut.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $(id -u) -eq 0 ]] || exec sudo --preserve-env=MIRROR,MSRECD_CHAOS_S,MSRECD_FLEET_CHUNKS,MSRECD_TWENTY "$0" "$@"

artemis=2.40.0
base=$PWD/.cache/trixie root=$PWD/.cache/trixie-fleet
mapfile -t packages < <(grep -v "^#" scripts/trixie-packages.txt)
scripts/debian-root.sh "$base" "${packages[@]}"
mapfile -t packages < <(grep -v "^#" scripts/fleet-packages.txt)
BASE=$base scripts/debian-root.sh "$root" "${packages[@]}"

if [[ ! -e $root/opt/artemis/bin/artemis ]]; then
    if command -v mvn >/dev/null; then
        echo "fleet-test: ActiveMQ Artemis $artemis from Maven Central (once)"
        if mvn -q org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -DoutputDirectory="$PWD/.cache" \
            -Dartifact="org.apache.activemq:apache-artemis:$artemis:zip:bin" >.cache/artemis.log 2>&1; then
            rm -rf "$root/opt/artemis"
            python3 -m zipfile -e ".cache/apache-artemis-$artemis-bin.zip" "$root/opt"
            mv "$root/opt/apache-artemis-$artemis" "$root/opt/artemis"
            chmod +x "$root/opt/artemis/bin/artemis"
        else
            echo "fleet-test: Artemis could not be had and is left out: $(tail -n 1 .cache/artemis.log)"
        fi
    else
        echo "fleet-test: there is no mvn here (apt install maven): Artemis is left out"
    fi
fi

# Each run writes into a layer of its own above the tree, which goes with it.
run=$(mktemp -d "$PWD/.cache/fleet-run.XXXXXX")
chmod 755 "$run"
child=
# Who interrupts it wants an end: everything in the namespaces goes with their first process.
trap '[[ -z $child ]] || { kill -KILL "$child"; wait "$child" || true; } 2>/dev/null; rm -rf --one-file-system "$run"' EXIT
trap 'exit 130' INT TERM HUP
copy=$run/upper/srv/msrecd
mkdir -p "$copy" "$run/upper/srv/run" "$run/work" "$run/root"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file ]]; then printf '%s\0' "$file"; fi
done | xargs -0 cp --parents -t "$copy"

# shellcheck disable=SC2016  # the inner shell expands them
unshare --mount --pid --net --uts --fork --kill-child /bin/bash -euc '
    tree=$1 run=$2 root=$2/root
    shift 2
    mount --make-rprivate /
    mount -t overlay overlay -o "lowerdir=$tree,upperdir=$run/upper,workdir=$run/work" "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount --rbind /dev "$root/dev"
    for folder in tmp run; do mount -t tmpfs tmpfs "$root/$folder"; done
    ip link set lo up
    # This shell stays: as the first process it takes care of those whose parents were killed.
    chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/bin:/usr/sbin:/bin:/sbin PYTHONPATH=/srv/msrecd \
        MSRECD_FLEET_TREE=yes MSRECD_CHAOS_S="${MSRECD_CHAOS_S:-600}" MSRECD_FLEET_CHUNKS="${MSRECD_FLEET_CHUNKS:-}" \
        MSRECD_TWENTY="${MSRECD_TWENTY:-}" \
        /bin/sh -c '"'"'cd /srv/msrecd && exec /usr/bin/python3 -m pytest -p no:cacheprovider -p no:xdist "$@"'"'"' pytest "$@" || exit $?
' fleet "$root" "$run" --timeout 3600 -o testpaths=fleet-tests "$@" </dev/null &
child=$!
status=0
wait "$child" || status=$?
child=
exit $status
