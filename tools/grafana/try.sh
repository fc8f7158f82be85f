#!/bin/bash
# make grafana: an InfluxDB with a run of the example suite in it, and Grafana with our dashboards on it.
#
# influxd comes from the cache (`make influxd` builds it). Grafana is the one on PATH, or GRAFANA names it; where
# there is none, everything else is made and what Grafana needs is printed. Everything listens on loopback alone,
# lies in a temporary directory, and ends with Ctrl-C.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PATH="$PWD/.venv/bin:$PATH"
influx_port=${INFLUX_PORT:-18086} grafana_port=${GRAFANA_PORT:-13000}
influxd=$(tools/influxd/build.sh)
grafana=${GRAFANA:-$(command -v grafana || true)}
work=$(mktemp -d -t dtf-grafana.XXXXXX)
started=()
finish() {
    [ ! -d "$work/suite/.dtf" ] || dtf --project "$work/suite" down --now >/dev/null 2>&1 || true
    [ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 0' INT TERM

echo "[grafana] influxd on 127.0.0.1:$influx_port" >&2
"$influxd" --bolt-path="$work/bolt" --sqlite-path="$work/sqlite" --engine-path="$work/engine" \
    --http-bind-address="127.0.0.1:$influx_port" --reporting-disabled >"$work/influxd.log" 2>&1 &
started+=($!)
export INFLUXDB_V2_URL="http://127.0.0.1:$influx_port" INFLUXDB_V2_ORG=dtf INFLUXDB_V2_BUCKET=dtf
INFLUXDB_V2_TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe(24))')
export INFLUXDB_V2_TOKEN
python - <<'PYTHON'
import json, os, time, urllib.error, urllib.request

body = {"username": "dtf", "password": os.environ["INFLUXDB_V2_TOKEN"], "org": "dtf", "bucket": "dtf"}
body["token"] = os.environ["INFLUXDB_V2_TOKEN"]
request = urllib.request.Request(
    os.environ["INFLUXDB_V2_URL"] + "/api/v2/setup", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
for attempt in range(100):
    try:
        urllib.request.urlopen(request, timeout=10).close()
        break
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: influxd refuses to be set up: {error.read().decode()}")
    except OSError:
        time.sleep(0.2)
else:
    raise SystemExit("error: influxd does not answer; is the port taken? INFLUX_PORT chooses another")
PYTHON

echo "[grafana] buckets, tasks, and the example suite on a pool that grows" >&2
dtf store setup
cp -r examples/skewed "$work/suite"
rm -rf "$work/suite/.dtf"
dtf --project "$work/suite" up --store influxdb >/dev/null
(cd "$work/suite" && dtf run .) || true
dtf store status
dtf grafana export "$work/grafana" >/dev/null

export GF_PATHS_PROVISIONING="$work/grafana/provisioning" DTF_GRAFANA_DASHBOARDS="$work/grafana/dashboards"
if [ -z "$grafana" ]; then
    echo "[grafana] no grafana on PATH and GRAFANA names none. Install it, and start it on what runs here:" >&2
    for name in INFLUXDB_V2_URL INFLUXDB_V2_ORG INFLUXDB_V2_BUCKET INFLUXDB_V2_TOKEN GF_PATHS_PROVISIONING \
        DTF_GRAFANA_DASHBOARDS; do
        echo "    export $name=${!name}"
    done
    echo "[grafana] Ctrl-C ends it" >&2
    [ -n "${TRY_ONCE:-}" ] || wait
    exit 0
fi
echo "[grafana] http://127.0.0.1:$grafana_port, folder dtf; Ctrl-C ends it" >&2
GF_PATHS_DATA="$work/grafana-data" GF_PATHS_LOGS="$work/grafana-logs" GF_SERVER_HTTP_ADDR=127.0.0.1 \
    GF_SERVER_HTTP_PORT="$grafana_port" GF_AUTH_ANONYMOUS_ENABLED=true GF_AUTH_ANONYMOUS_ORG_ROLE=Viewer \
    GF_ANALYTICS_REPORTING_ENABLED=false \
    "$grafana" server --homepath "${GRAFANA_HOME:-/usr/share/grafana}" >"$work/grafana.log" 2>&1 &
started+=($!)
wait
