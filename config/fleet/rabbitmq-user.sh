#!/bin/sh
# A user of the event backbone with the rights it needs, on any node: rabbitmq-user.sh bridge-SITE|consumer|console
# Takes the password from the first line of standard input. Again: a new password. (Users do not stand in
# definitions.json: what stands there is set anew at each start of a node, passwords too.)
set -eu

user=${1:?"usage: rabbitmq-user.sh bridge-SITE|consumer|console <password"}
ctl=${RABBITMQCTL:-rabbitmqctl}
IFS= read -r password
own="mqtt-(subscription|will)-"
case $user in
bridge-*)
    own="$own$user.*"
    configure="^$own\$" write="^(amq\\.topic|$own)\$" read="^(amq\\.topic|$own)\$"
    # Up: what devices say, and whether the line stands. Down: commands.
    say="^msrecd\\.(v1\\.[a-z0-9-]+\\.(availability|(state|event|image|reply)\\..+)|bridge\\.${user#bridge-})\$"
    hear="^msrecd\\.v1\\.([^.]+|group\\.[^.]+)\\.cmd\\..+\$"
    ;;
consumer)
    configure="^\$" write="^\$" read="^msrecd\\.(events|states)\$"
    say="^\$" hear="^\$"
    ;;
console)
    configure="^$own.*\$" write="^(amq\\.topic|$own.*)\$" read="^(amq\\.topic|$own.*)\$"
    say="^msrecd\\.v1\\.([^.]+|group\\.[^.]+)\\.cmd\\..+\$" hear="^msrecd\\..+\$"
    ;;
*)
    echo "rabbitmq-user.sh: bridge-SITE, consumer or console, not $user" >&2
    exit 2
    ;;
esac
# Only a salted hash goes to the command: arguments can be read by everybody on the machine.
hash=$(printf '%s' "$password" | perl -MDigest::SHA=sha256 -MMIME::Base64 -e '
    local $/; my $password = <STDIN>;
    open my $random, "<", "/dev/urandom"; read $random, my $salt, 4;
    print encode_base64($salt . sha256($salt . $password), "")')
if $ctl -q list_users </dev/null | cut -f 1 | grep -qx "$user"; then $ctl -q delete_user "$user" </dev/null; fi
$ctl -q add_user "$user" "$hash" --pre-hashed-password </dev/null
$ctl -q set_permissions "$user" "$configure" "$write" "$read" </dev/null
$ctl -q set_topic_permissions "$user" amq.topic "$say" "$hear" </dev/null
# The one that every new cluster has.
if $ctl -q list_users </dev/null | cut -f 1 | grep -qx guest; then $ctl -q delete_user guest </dev/null; fi
