"""What `dtf run --each`, `--exec` and `--callable` ask of the coordinator."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode

_SHELL_CHARACTERS = re.compile(r"[|&;<>()$`\\\"'*?\[\]#~%{}\n]|^\s*\w+=")
"""A line with one of these, quotes aside, means something to a shell."""
_MAX_NAME_CHARACTERS = 1000
BENCHMARK_FORMATS: Mapping[str, "common_pb2.BenchmarkFormat.ValueType"] = {
    "pytest-benchmark": common_pb2.BENCHMARK_FORMAT_PYTEST_BENCHMARK,
    "google-benchmark": common_pb2.BENCHMARK_FORMAT_GOOGLE_BENCHMARK,
    "hyperfine": common_pb2.BENCHMARK_FORMAT_HYPERFINE,
}


@dataclass(frozen=True, slots=True)
class Work:
    """One template and its tasks."""

    template: common_pb2.TaskTemplate
    tasks: Sequence[common_pb2.TaskSpec]


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """What is the same for every task of a run."""

    working_dir: str
    environment: Mapping[str, str] = field(default_factory=dict)
    requirements: Mapping[str, str] = field(default_factory=dict)
    """Labels a worker must carry; the keys cpus, memory_bytes, gpus and pool mean those."""
    timeout_seconds: float = 0.0
    test_retries: int = 0
    infrastructure_retries: int = 1

    def template(self) -> common_pb2.TaskTemplate:
        """A template without its specification. Raises CommandError."""
        return common_pb2.TaskTemplate(
            requirements=_requirements(self.requirements),
            retry=common_pb2.RetryPolicy(
                test_retries=self.test_retries, infrastructure_retries=self.infrastructure_retries
            ),
            timeout_seconds=self.timeout_seconds,
        )


def _requirements(wishes: Mapping[str, str]) -> common_pb2.Requirements:
    requirements = common_pb2.Requirements()
    for key, value in wishes.items():
        try:
            match key:
                case "cpus":
                    requirements.resources.cpus = float(value)
                case "memory_bytes":
                    requirements.resources.memory_bytes = int(value)
                case "gpus":
                    requirements.resources.gpus = int(value)
                case "pool":
                    requirements.pool = value
                case label:
                    requirements.labels[label] = value
        except ValueError:
            raise CommandError(
                f"--require {key}={value}: expected a number", exit_code=ExitCode.USAGE
            ) from None
    return requirements


def read_lines(lines: Iterable[str]) -> list[str]:
    """The lines that say something: not blank, no comment."""
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def split_command(line: str) -> list[str]:
    """A command line as arguments; one that a shell would have to understand is given to `sh -c`."""
    if _SHELL_CHARACTERS.search(line):
        try:
            words = shlex.split(line)
        except ValueError:
            words = []
        if not words or _needs_shell(line):
            return ["/bin/sh", "-c", line]
        return words
    return line.split()


def _needs_shell(line: str) -> bool:
    """Whether anything outside quotes means something to a shell."""
    outside = re.sub(r"'[^']*'|\"[^\"$`\\]*\"", "", line)
    return bool(_SHELL_CHARACTERS.search(outside))


def commands_work(lines: Sequence[str], options: WorkOptions) -> Work:
    """One task a command line."""
    template = options.template()
    template.command.CopyFrom(_command(options))
    tasks = [
        common_pb2.TaskSpec(name=_short(line), payload=json.dumps(split_command(line))) for line in lines
    ]
    return Work(template, tasks)


def command_work(
    argv: Sequence[str],
    options: WorkOptions,
    *,
    junit_xml: str = "",
    benchmark_json: str = "",
    benchmark_format: str = "",
) -> Work:
    """One command, whose result files say more than its exit code."""
    if benchmark_json and not benchmark_format:
        raise CommandError(
            "--benchmark-json needs --benchmark-format",
            f"one of {', '.join(BENCHMARK_FORMATS)}",
            exit_code=ExitCode.USAGE,
        )
    template = options.template()
    template.command.CopyFrom(_command(options))
    template.command.argv.extend(argv)
    template.command.junit_xml = junit_xml
    template.command.benchmark_json = benchmark_json
    if benchmark_format:
        template.command.benchmark_format = BENCHMARK_FORMATS[benchmark_format]
    return Work(template, [common_pb2.TaskSpec(name=_short(shlex.join(argv)))])


def callable_work(
    function: str, lines: Sequence[str] | None, options: WorkOptions, import_path: Sequence[str]
) -> Work:
    """One call a line of JSON arguments (an array or an object); without lines one call of none."""
    module, separator, name = function.partition(":")
    if not separator or not module or not name:
        raise CommandError(
            f"--callable {function!r} is not module:function",
            "for example bench.cases:parse",
            exit_code=ExitCode.USAGE,
        )
    template = options.template()
    template.callable.CopyFrom(
        common_pb2.CallableSpec(
            function=function,
            import_path=import_path,
            working_dir=options.working_dir,
            environment=options.environment,
        )
    )
    if lines is None:
        return Work(template, [common_pb2.TaskSpec(name=function)])
    for number, line in enumerate(lines, start=1):
        _check_arguments(line, number)
    return Work(
        template, [common_pb2.TaskSpec(name=_short(f"{function}({line})"), payload=line) for line in lines]
    )


def _check_arguments(line: str, number: int) -> None:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, (list, dict)):
        raise CommandError(
            f"line {number}: {line[:80]!r} is neither a JSON array nor an object of arguments",
            'for example [1, "two"] or {"size": 4}',
            exit_code=ExitCode.USAGE,
        )


def _command(options: WorkOptions) -> common_pb2.CommandSpec:
    return common_pb2.CommandSpec(working_dir=options.working_dir, environment=options.environment)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[: _MAX_NAME_CHARACTERS - 1]}…"
