"""What `dtf run` does on a stack that is up, whatever the kind of its work."""

from collections.abc import Iterator

import pytest

from dtf.api.v1 import common_pb2
from dtf.cli.exit_codes import ExitCode
from tests.e2e.project import Project, shared_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One project for all of them, with its stack up."""
    yield from shared_project(tmp_path_factory.mktemp("project"))


def test_user_code_gets_no_lifeline_and_no_secret(project: Project) -> None:
    project.write("commands.txt", "env\nls -l /proc/self/fd\n")
    run_id = project.json("run", "--each", "commands.txt", "--json")["run_id"]
    environment = project.dtf("logs", run_id, "--task", "0")
    descriptors = project.dtf("logs", run_id, "--task", "1")
    assert "PATH=" in environment
    assert "DTF_LIFELINE_FD" not in environment
    assert "socket:" not in descriptors


def test_pytest_through_dtf_run_gives_its_exit_code_and_its_run(project: Project) -> None:
    project.write("test_two.py", "def test_a(): pass\n\ndef test_b(): assert False\n")
    result = project.json("run", "--json", "test_two.py", expect=(1,))
    assert result["cases"] == 2
    assert (result["counts"]["passed"], result["counts"]["failed"]) == (1, 1)
    lines = project.dtf("run", "test_two.py", "-q", "-k", "test_a").splitlines()
    assert lines[0].startswith(".")
    word, page = lines[-1].split()
    assert word == "report"
    assert "test_two.py::test_a" in (project.directory / page).read_text(encoding="utf-8")


def test_functions_run_with_arguments_from_a_file(project: Project) -> None:
    project.write("cases.py", "def half(number):\n    assert number % 2 == 0\n")
    project.write("numbers.jsonl", '[2]\n[3]\n{"number": 4}\n')
    arguments = ["run", "--callable", "cases:half", "--each", "numbers.jsonl", "--json"]
    result = project.json(*arguments, expect=(1,))
    assert [failure["name"] for failure in result["failures"]] == ["cases:half([3])"]
    assert result["counts"]["passed"] == 2


def test_one_command_relays_its_output_and_its_junit_is_read(project: Project) -> None:
    junit = '<testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite>'
    project.write("write.sh", f"echo said\necho '{junit}' > out.xml\n")
    command = ["run", "--exec", "--junit", "out.xml", "--", "sh", "write.sh"]
    output = project.dtf(*command, expect=(ExitCode.FAILED,))
    assert output.splitlines()[0] == "said"


async def test_what_no_worker_can_run_waits_and_says_so_then_is_an_error(project: Project) -> None:
    project.write("commands.txt", "true\n")
    arguments = ["--require", "gpu=a100", "--wait", "0.5", "--each", "commands.txt", "--json"]
    result = project.json("run", *arguments, expect=(ExitCode.FAILED,))
    assert result["counts"]["error"] == 1
    assert "gpu=a100" in result["failures"][0]["message"]


async def test_a_flaky_command_passes_when_tried_again(project: Project) -> None:
    project.write("commands.txt", "test -e once || { touch once; false; }\n")
    result = project.json("run", "--retries", "1", "--each", "commands.txt", "--json")
    assert result["counts"]["flaky"] == 1
    account = await project.account()
    books = account.runs[result["run_id"]]
    assert books.faults() == []
    assert books.verdicts[(0, 0)] == common_pb2.VERDICT_FLAKY


def test_what_pytest_cases_printed_can_be_asked_for_by_case(project: Project) -> None:
    project.write(
        "test_talk.py", "def test_a():\n    print('from a')\n\ndef test_b():\n    print('from b')\n"
    )
    run_id = project.json("run", "--json", "test_talk.py")["run_id"]
    lines = project.dtf("logs", run_id, "test_b").splitlines()
    assert lines[1:] == ["from b"]
    assert lines[0].startswith("--- test_talk.py::test_b on local-")
