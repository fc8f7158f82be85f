#!/bin/sh
# Follows a dtf installation with the `nats` command (https://github.com/nats-io/natscli).
#
#     sh nats.sh nats://127.0.0.1:4222 .dtf/secrets/nats-tap live 'dtf.*.live.*.RunFinished'
#     sh nats.sh nats://127.0.0.1:4222 .dtf/secrets/nats-tap next default 10
#
# `live` prints the live feed, one line of JSON an event. `next` prints sequence and headers of the next so
# many commits of a namespace; a durable consumer remembers how far it came, so that calling it again
# goes on from there. NATS names another `nats` than the one on the PATH.
set -eu
url=$1 credentials=$2 what=$3
NATS_URL=$url
NATS_USER=$(cut -d: -f1 "$credentials")
NATS_PASSWORD=$(cut -d: -f2- "$credentials")
export NATS_URL NATS_USER NATS_PASSWORD
nats=${NATS:-nats}

case $what in
live)
    exec "$nats" subscribe --raw "$4"
    ;;
next)
    stream=DTF_EVENTS_$4
    "$nats" consumer info "$stream" shell >/dev/null 2>&1 ||
        "$nats" consumer add "$stream" shell --pull --deliver all --ack explicit --defaults >/dev/null
    # What a commit says is protobuf: only what can be read is shown.
    "$nats" consumer next "$stream" shell --count "$5" --ack | grep -a -o -E 'str seq: [0-9]+|^ +(Dtf-|Nats-Msg-Id).*'
    ;;
*)
    echo "error: $what is neither live nor next" >&2
    exit 2
    ;;
esac
