"""The script that makes a machine of a cloud a worker, and what it writes to the console at its end. Pure.

The machine lives as long as its worker: however that ends, the script says so on the console, where the
clouds let it be read from outside without any right of the machine, and shuts down.

What boots the machine reads the script from its metadata, and so can all that runs on it: that is where the
join token is seen, which is good for this launch alone, once, and for minutes.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dtf.adapters.kubernetes_objects import LAUNCH_VARIABLE
from dtf.ports.capacity import LaunchRequest

NOTICES_VARIABLE = "DTF_WORKER_SPOT_NOTICES"
OUTCOME = "dtf-outcome"
STOP_SECONDS = 120
"""A machine that shuts down waits so long for its worker: as long as the longest notice of a cloud."""
_SIGNAL_BASE = 128
_END = "DTF_END_OF_WORKER"


@dataclass(frozen=True, slots=True)
class Boot:
    """How machines of a pool come up."""

    notices: str
    """worker.spot_notices of the cloud."""
    setup: str = ""
    user: str = ""
    """Whom the worker runs as; empty: root."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker ended, by its machine's console."""

    reason: str
    is_clean: bool


def boot_script(
    boot: Boot, request: LaunchRequest, command: Sequence[str], environment: Mapping[str, str]
) -> str:
    """What a machine runs, as root, when it boots."""
    return f"""#!/bin/sh
# A worker of dtf, launched as {request.launch_id}.
umask 077
directory="${{WORKER_DIRECTORY:-/run/dtf}}"
mkdir -p "$directory"
cat > "$directory/worker.sh" <<'{_END}'
{_worker_script(boot, request, command, environment)}{_END}
# A service of its own is told when the machine shuts down, and while there is a network.
if command -v systemd-run > /dev/null 2>&1 && [ -z "$WORKER_DIRECTORY" ]; then
  exec systemd-run --quiet --collect --unit=dtf-worker --property=After=network-online.target \\
    --property=KillMode=mixed --property=TimeoutStopSec={STOP_SECONDS} /bin/sh "$directory/worker.sh"
fi
exec /bin/sh "$directory/worker.sh"
"""


def outcome_in(console: str, launch_id: str) -> Outcome | None:
    """How the worker of a launch ended, if the console says so."""
    said = re.findall(rf"^.*{OUTCOME} {re.escape(launch_id)} (\d+) ?([^\r\n]*)", console, re.MULTILINE)
    if not said:
        return None
    code, words = int(said[-1][0]), said[-1][1].strip()
    if code > _SIGNAL_BASE:
        return Outcome(f"was killed by signal {code - _SIGNAL_BASE}", is_clean=False)
    return Outcome(f"exited with code {code}" + (f" ({words})" if code and words else ""), is_clean=code == 0)


def _worker_script(
    boot: Boot, request: LaunchRequest, command: Sequence[str], environment: Mapping[str, str]
) -> str:
    variables = {
        **boot.environment,
        **environment,
        LAUNCH_VARIABLE: request.launch_id,
        NOTICES_VARIABLE: boot.notices,
    }
    line = list(command)
    home = 'export HOME="${HOME:-/root}"'
    if boot.user:
        # It becomes the worker, rather than wait for it: signals and exit codes are the worker's own.
        line = ["setpriv", f"--reuid={boot.user}", f"--regid={boot.user}", "--init-groups", "--", *line]
        home = f'export HOME="$(getent passwd {shlex.quote(boot.user)} | cut -d: -f6)"'
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items()))
    return f"""directory="${{WORKER_DIRECTORY:-/run/dtf}}"
console="${{WORKER_CONSOLE:-/dev/console}}"
log="$directory/worker.log"
{home}
cd "$HOME" 2> /dev/null || cd /
finish() {{
  words="$(grep '^error: ' "$log" | tail -n 1)"
  {{ tail -n 20 "$log"; printf '\\n{OUTCOME} %s %s %s\\n' {shlex.quote(request.launch_id)} "$1" "$words"; }} > "$console" 2>&1
  shutdown -h now
  exit "$1"
}}
prepare() {{
:
{boot.setup}
}}
prepare >> "$log" 2>&1 || {{ code=$?; echo "error: [setup] ended with code $code" >> "$log"; finish "$code"; }}
{exports}
{shlex.join(line)} >> "$log" 2>&1 &
worker=$!
trap 'kill -TERM "$worker" 2> /dev/null' TERM INT
# A signal ends `wait` before the worker has ended.
while :; do wait "$worker"; code=$?; kill -0 "$worker" 2> /dev/null || break; done
finish "$code"
"""
