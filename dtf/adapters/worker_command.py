"""The command line of a worker that a provider launches."""

from collections.abc import Sequence

from dtf.ports.capacity import LaunchRequest, WorkerCommand


def worker_command(program: Sequence[str], options: Sequence[str] = ()) -> WorkerCommand:
    """`program` is what runs dtf, with its global options; `options` are further ones of `dtf worker`.

    Whom a worker elsewhere joins comes by its environment (DTF_JOIN_TOKEN), never on the command line.
    """

    def command(request: LaunchRequest) -> Sequence[str]:
        line = [*program, "worker", *options, "--pool", request.pool, "--name", request.launch_id]
        line += ["--slots", str(request.slots)]
        for key, value in sorted(request.labels.items()):
            line += ["--label", f"{key}={value}"]
        return line

    return command
