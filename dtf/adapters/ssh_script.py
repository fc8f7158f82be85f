"""What a host is asked to do, as a POSIX shell reads it, and its answers. Pure.

Each launch has a directory on its host, DIRECTORY/CLUSTER/NAMESPACE/POOL/LAUNCH/, which `mkdir` makes
once: that is what keeps a launch from being made twice. In it:

    launched    when, in nanoseconds since 1970 UTC, as the resource manager gave it, and its slots
    pid         the worker, leader of a session of its own
    started     its start, in ticks since the host booted: tells it from a later process of its number
    watch       the shell that waits for it
    exit        its exit code as the shell has it, once it has ended
    log         what it wrote; mode 0600, as all of it

The worker is the child of a small shell that waits for it, in a session of its own too, so both outlive
the connection; what the worker is told in secret comes by standard input, and only the worker has it in
its environment. What a host answers is not trusted: an id that could lead out of a directory is no id.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from dtf.adapters.kubernetes_objects import LAUNCH_VARIABLE, Owner

ALREADY_THERE = 17
"""Exit code of a launch that is there already (EEXIST)."""
_SIGNAL_BASE = 128
_LOG_TAIL_BYTES = 4096
_LINE = re.compile(
    r"launch ([A-Za-z0-9_-][A-Za-z0-9._-]{0,127}) ([0-9]{1,19}) ([0-9]{1,9}) ([0-9]{1,9}) "
    r"(running|exited|unknown) ([0-9]{0,3}) ?(.*)"
)
_IS_OURS = """
is_running() {  # whether the process of $1 is still the worker
  read -r pid < "$1/pid" && read -r started < "$1/started" || return 1
  now=$(sed 's/.*) //' "/proc/$pid/stat" 2> /dev/null) || return 1
  set -- $now
  [ "${20}" = "$started" ] && [ "$1" != Z ]
}
is_watched() {  # whether the shell that waits for it goes on: it will write its exit code
  read -r watch < "$1/watch" && grep -aq dtf-watch "/proc/$watch/cmdline"
} 2> /dev/null
"""
_WATCH = r"""
d=$1 mask=$2; shift 2
variables=$(cat)
umask 077
exec < /dev/null >> "$d/log" 2>&1
echo "$$" > "$d/watch"
cd
(
  umask "$mask"
  eval "$variables"
  cd
  cd "${1:-.}" || set -- '' sh -c 'echo "error: there is no directory $0" >&2; exit 1' "$1"
  shift
  exec setsid "$@"
) &
pid=$!
unset variables
sed 's/.*) //' "/proc/$pid/stat" 2> /dev/null | { read -r line; set -- $line; echo "${20}"; } > "$d/started"
{ echo "$pid" > "$d/pid.new" && mv "$d/pid.new" "$d/pid"; } || { kill -s KILL "$pid"; exit 1; }  # it was forgotten
wait "$pid"
echo "$?" > "$d/exit.new"
mv "$d/exit.new" "$d/exit"
"""


@dataclass(frozen=True, slots=True)
class RemoteLaunch:
    """A launch as its host tells of it."""

    launch_id: str
    launched_at_ns: int
    slots: int
    process_id: int
    has_exited: bool
    code: int | None = None
    """As the shell has it; None: not known."""
    last_words: str = ""

    @property
    def reason(self) -> str:
        """How it ended."""
        if not self.has_exited:
            return ""
        if self.code is None and not self.process_id:
            return "was not started: the connection was lost, or its host went down"
        if self.code is None:
            return "ended, and with it what watched over it, so its exit code is not known"
        if self.code > _SIGNAL_BASE:
            return f"was killed by signal {self.code - _SIGNAL_BASE}"
        return f"exited with code {self.code}" + (
            f" ({self.last_words})" if self.code and self.last_words else ""
        )


def directory_of(directory: str, owner: Owner) -> str:
    """Where an owner's launches are, from the home directory of the user on the host."""
    parts = (quote(part, safe="") for part in (owner.cluster, owner.namespace, owner.pool))
    return "/".join((directory.rstrip("/"), *parts))


def launch_script(
    directory: str,
    launch: RemoteLaunch,
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    working_dir: str = "",
    setup: str = "",
) -> str:
    """Start a worker, unless its launch is there."""
    told = f"{launch.launched_at_ns} {launch.slots}"
    exports = {**variables, LAUNCH_VARIABLE: launch.launch_id}
    told_in_secret = "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in sorted(exports.items())
    )
    lines = [
        "main() {",  # a script of which half arrived does nothing
        "trap '' HUP",
        "mask=$(umask); umask 077",
        f"mkdir -p {shlex.quote(directory)} && cd {shlex.quote(directory)} || exit 1",
        f"d=$PWD/{shlex.quote(launch.launch_id)}",
        f'mkdir "$d" 2> /dev/null || exit {ALREADY_THERE}',
        *([setup] if setup else []),
        # printf is of the shell: what it writes is on no command line.
        f"printf '%s\\n' {shlex.quote(told_in_secret)} | "
        f'setsid sh -c {shlex.quote(_WATCH)} dtf-watch "$d" "$mask" {shlex.quote(working_dir)} '
        f"{shlex.join(command)} > /dev/null 2>&1 &",
        'until [ -e "$d/pid" ] || ! kill -0 $! 2> /dev/null; do sleep 0.05 || sleep 1; done',
        '[ -e "$d/pid" ] || { rm -rf -- "$d"; exit 1; }',
        # Last: what is listed has a process, so what has none is never taken for one that ended.
        f'echo {told} > "$d/launched.new" && mv "$d/launched.new" "$d/launched"',
        "}",
        "main",
    ]
    return "\n".join(lines) + "\n"


def list_script(directory: str) -> str:
    """Tell of every launch there is."""
    return f"""{_IS_OURS}
main() {{
cd {shlex.quote(directory)} 2> /dev/null || exit 0
for d in *; do
  [ -e "$d/launched" ] || continue
  read -r launched slots < "$d/launched"
  pid=0; code=; words=; state=running
  [ -e "$d/pid" ] && read -r pid < "$d/pid"
  if ! is_running "$d" && ! is_watched "$d"; then state=unknown; fi
  if [ -e "$d/exit" ]; then
    state=exited; read -r code < "$d/exit"
    words=$(tail -c {_LOG_TAIL_BYTES} "$d/log" 2> /dev/null | grep -a '^ *error: ' | tail -n 1)
    [ -n "$words" ] || words=$(tail -c {_LOG_TAIL_BYTES} "$d/log" 2> /dev/null | grep -a '[^ ]' | tail -n 1)
  fi
  printf '%s\\n' "launch $d $launched $slots $pid $state $code $words"  # echo may make lines of a \\n in it
done
exit 0
}}
main
"""


def signal_script(directory: str, launch_id: str, signal_name: str, *, is_group: bool = False) -> str:
    """Send a worker, or its whole group, a signal."""
    target = '-- "-$pid"' if is_group else '"$pid"'
    return "\n".join(
        [
            _IS_OURS,
            f"cd {shlex.quote(directory)} 2> /dev/null || exit 0",
            f"d={shlex.quote(launch_id)}",
            f'if is_running "$d"; then read -r pid < "$d/pid"; kill -s {signal_name} {target}; fi',
            "exit 0",
        ]
    )


def forget_script(directory: str, launch_id: str) -> str:
    """Remove what is left of a launch; if, against what was believed, it runs, end it."""
    killing = signal_script(directory, launch_id, "KILL", is_group=True).removesuffix("exit 0")
    return f"{killing}rm -rf -- {shlex.quote(launch_id)}\nexit 0\n"


def read_launches(text: str) -> Iterator[RemoteLaunch]:
    """What `list_script` wrote; lines that it cannot have written are left out."""
    for line in text.split("\n"):
        if found := _LINE.fullmatch(line):
            launch_id, launched, slots, process_id, state, code, words = found.groups()
            yield RemoteLaunch(
                launch_id,
                int(launched),
                int(slots),
                int(process_id),
                state != "running",
                int(code) if code else None,
                words.strip(),
            )
