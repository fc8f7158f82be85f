"""What `dtf run` asks for: command lines, one command, calls."""

import json
from pathlib import Path

import pytest

from dtf.api.v1 import common_pb2
from dtf.cli.errors import CommandError
from dtf.cli.run_tasks import (
    WorkOptions,
    callable_work,
    command_work,
    commands_work,
    read_lines,
    split_command,
)
from dtf.settings.project import revision_of

OPTIONS = WorkOptions(working_dir="/w")


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("true", ["true"]),
        ("./bench --case 3", ["./bench", "--case", "3"]),
        ('echo "two words"', ["echo", "two words"]),
        ("echo 'a|b'", ["echo", "a|b"]),
        ("a | b", ["/bin/sh", "-c", "a | b"]),
        ("cd x && make", ["/bin/sh", "-c", "cd x && make"]),
        ("X=1 env", ["/bin/sh", "-c", "X=1 env"]),
        ("ls *.py", ["/bin/sh", "-c", "ls *.py"]),
        ('echo "$HOME"', ["/bin/sh", "-c", 'echo "$HOME"']),
        ("echo 'unclosed", ["/bin/sh", "-c", "echo 'unclosed"]),
    ],
)
def test_a_line_becomes_arguments_or_goes_to_a_shell(line: str, argv: list[str]) -> None:
    assert split_command(line) == argv


def test_blank_lines_and_comments_are_no_commands() -> None:
    assert read_lines(["# first\n", "\n", "  true  \n", "false"]) == ["true", "false"]


def test_each_line_is_a_task_named_as_it_was_written() -> None:
    work = commands_work(["true", "a | b"], OPTIONS)
    assert [task.name for task in work.tasks] == ["true", "a | b"]
    assert json.loads(work.tasks[1].payload) == ["/bin/sh", "-c", "a | b"]
    assert work.template.command.working_dir == "/w"


def test_one_command_names_its_result_files() -> None:
    work = command_work(
        ["ctest", "-j2"], OPTIONS, junit_xml="o.xml", benchmark_json="b.json", benchmark_format="hyperfine"
    )
    command = work.template.command
    assert list(command.argv) == ["ctest", "-j2"]
    assert (command.junit_xml, command.benchmark_json) == ("o.xml", "b.json")
    assert command.benchmark_format == common_pb2.BENCHMARK_FORMAT_HYPERFINE
    assert [task.name for task in work.tasks] == ["ctest -j2"]


def test_a_benchmark_file_needs_its_format() -> None:
    with pytest.raises(CommandError, match="needs --benchmark-format"):
        command_work(["b"], OPTIONS, benchmark_json="b.json")


def test_a_function_is_called_once_a_line() -> None:
    work = callable_work("m:f", ["[1]", '{"size": 2}'], OPTIONS, ["/w"])
    assert [task.payload for task in work.tasks] == ["[1]", '{"size": 2}']
    assert work.template.callable.function == "m:f"
    assert [task.name for task in callable_work("m:f", None, OPTIONS, []).tasks] == ["m:f"]


@pytest.mark.parametrize("line", ["3", "nonsense", '"text"'])
def test_arguments_that_are_no_array_or_object_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(CommandError, match="line 2"):
        callable_work("m:f", ["[1]", line], OPTIONS, [])


@pytest.mark.parametrize("function", ["", "m", "m:", ":f"])
def test_a_function_needs_its_module(function: str) -> None:
    with pytest.raises(CommandError, match="is not module:function"):
        callable_work(function, None, OPTIONS, [])


def test_wishes_become_requirements() -> None:
    options = WorkOptions(
        "/w", requirements={"cpus": "1.5", "gpus": "1", "memory_bytes": "1024", "pool": "big", "gpu": "a100"}
    )
    requirements = options.template().requirements
    assert requirements.resources.cpus == 1.5
    assert requirements.resources.gpus == 1
    assert requirements.resources.memory_bytes == 1024
    assert requirements.pool == "big"
    assert dict(requirements.labels) == {"gpu": "a100"}


def test_a_resource_must_be_a_number() -> None:
    with pytest.raises(CommandError, match="cpus=many"):
        WorkOptions("/w", requirements={"cpus": "many"}).template()


def test_the_revision_is_read_from_git(tmp_path: Path) -> None:
    assert revision_of(tmp_path / "none") == ""
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert revision_of(tmp_path) == ""
    (git / "packed-refs").write_text("# pack\nabc123 refs/heads/main\n")
    assert revision_of(tmp_path) == "abc123"
    (git / "refs" / "heads" / "main").write_text("def456\n")
    assert revision_of(tmp_path) == "def456"
    (git / "HEAD").write_text("0123ab\n")
    assert revision_of(tmp_path) == "0123ab"
