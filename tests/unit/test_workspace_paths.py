"""What names a packed tree, and paths that mean the same in another place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.api.v1 import common_pb2
from dtf.core.workspace import Entry, Relocation, UnsafePath, check_link, check_path, manifest_digest
from dtf.runner.channel import Detail
from dtf.worker.workspace_paths import bring_home, relocated_command, relocated_spec
from dtf.worker.workspaces import Place

THERE = Relocation("/home/ada/app", "/var/cache/dtf/0a1b/tree")


@given(st.permutations([Entry("a", "1"), Entry("b/c", "2", is_program=True), Entry("d", "3", is_link=True)]))
def test_a_digest_does_not_depend_on_the_order_of_entries(entries: list[Entry]) -> None:
    assert manifest_digest(entries) == manifest_digest(sorted(entries, key=lambda entry: entry.path))


@pytest.mark.parametrize(
    "other",
    [
        Entry("a", "2"),
        Entry("b", "1"),
        Entry("a", "1", is_program=True),
        Entry("a", "1", is_link=True),
    ],
)
def test_a_digest_changes_with_content_name_mode_and_kind(other: Entry) -> None:
    assert manifest_digest([Entry("a", "1")]) != manifest_digest([other])


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\0b", ".."])
def test_a_path_that_may_lead_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(UnsafePath):
        check_path(path)


@pytest.mark.parametrize(
    ("path", "target"), [("a", ".."), ("a", "/etc"), ("a/b", "../../x"), ("a", ""), ("a", "b/../../c")]
)
def test_a_link_that_leads_out_of_the_tree_is_refused(path: str, target: str) -> None:
    with pytest.raises(UnsafePath):
        check_link(path, target)


def test_a_link_inside_the_tree_is_allowed() -> None:
    check_link("a/b/c", "../../d/e")
    check_path("a/..b/c...")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada/app", "/var/cache/dtf/0a1b/tree"),
        ("/home/ada/app/tests/test_a.py::test[x]", "/var/cache/dtf/0a1b/tree/tests/test_a.py::test[x]"),
        ("--rootdir=/home/ada/app", "--rootdir=/var/cache/dtf/0a1b/tree"),
        ("/usr/lib:/home/ada/app/src:/opt", "/usr/lib:/var/cache/dtf/0a1b/tree/src:/opt"),
        ("/home/ada/application", "/home/ada/application"),
        ("/mnt/home/ada/app", "/mnt/home/ada/app"),
        ("tests/test_a.py", "tests/test_a.py"),
    ],
)
def test_paths_in_the_tree_are_moved_and_others_are_not(text: str, expected: str) -> None:
    assert THERE.text(text) == expected


@given(st.lists(st.sampled_from(["a", "src", "b.py", "x-y", "é"]), max_size=4))
def test_a_path_that_was_moved_comes_home_as_it_was(parts: list[str]) -> None:
    path = "/".join(["/home/ada/app", *parts])
    assert THERE.back(THERE.text(path)) == path


def test_paths_in_reports_come_home_out_of_json_too() -> None:
    detail = Detail(
        reports_json=rb'["File \"/var/cache/dtf/0a1b/tree/a.py\"\n/var/cache/dtf/0a1b/tree/b.py:3: E"]',
        message="/var/cache/dtf/0a1b/tree/a.py failed",
        output="at /var/cache/dtf/0a1b/tree",
    )
    bring_home(detail, Place(THERE))
    assert detail.reports_json == rb'["File \"/home/ada/app/a.py\"\n/home/ada/app/b.py:3: E"]'
    assert detail.message == "/home/ada/app/a.py failed"
    assert detail.output == "at /home/ada/app"


def test_a_pytest_specification_keeps_what_is_in_the_tree_and_nothing_of_the_clients_machine() -> None:
    spec = {
        "root_dir": "/home/ada/app",
        "working_dir": "/home/ada/app/tests",
        "arguments": ["-x", "/home/ada/app/tests"],
        "import_path": [
            "/home/ada/app/src",
            "/home/ada/.venv/lib/python3.11/site-packages",
            "/usr/lib/python3.11",
        ],
        "environment": {"PYTHONPATH": "/home/ada/app/src:/else"},
        "options_json": '{"host": "here", "run_dir": "/home/ada/app/.dtf/pytest/1", "base_temp": "/tmp/x", "argv": ["p"]}',
    }
    place = Place(THERE, ("/site",), (("VIRTUAL_ENV", "/v"),))
    moved = relocated_spec(spec, "pytest", place)
    local = THERE.local
    assert moved["root_dir"] == local
    assert moved["working_dir"] == f"{local}/tests"
    assert moved["arguments"] == ["-x", f"{local}/tests"]
    assert moved["import_path"] == [f"{local}/src"]
    assert moved["environment"] == {"PYTHONPATH": f"{local}/src:/else", "VIRTUAL_ENV": "/v"}
    assert moved["site_dirs"] == ["/site"]
    assert moved["options_json"] == '{"argv":["p"]}'


def test_a_command_runs_in_the_tree_and_writes_its_results_there() -> None:
    spec = common_pb2.CommandSpec(
        argv=["/home/ada/app/run.sh", "-o", "out.xml"],
        working_dir="/home/ada/app/sub",
        junit_xml="/home/ada/app/out.xml",
        environment={"A": "/home/ada/app/b"},
    )
    moved = relocated_command(spec, Place(THERE))
    assert list(moved.argv) == [f"{THERE.local}/run.sh", "-o", "out.xml"]
    assert moved.working_dir == f"{THERE.local}/sub"
    assert moved.junit_xml == f"{THERE.local}/out.xml"
    assert moved.environment["A"] == f"{THERE.local}/b"
