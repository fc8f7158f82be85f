"""What a host answers is not trusted: neither its ids nor its numbers."""

import pytest

from dtf.adapters.ssh_script import RemoteLaunch, read_launches


@pytest.mark.parametrize("launch_id", ["local-1", "gpu_pool.2-17", "-1", "A" * 128])
def test_ids_that_are_issued_are_read(launch_id: str) -> None:
    line = f"launch {launch_id} 1700000000000000000 2 4711 exited 137 error: no room\n"
    assert list(read_launches(line)) == [
        RemoteLaunch(launch_id, 1_700_000_000_000_000_000, 2, 4711, True, 137, "error: no room")
    ]


@pytest.mark.parametrize(
    "launch_id", ["../../x", "..", ".", ".hidden", "/etc/x", "a/b", "a\\b", "ü", "a\0b", "A" * 129, ""]
)
def test_an_id_that_could_lead_elsewhere_is_left_out(launch_id: str) -> None:
    answer = f"launch {launch_id} 1 1 1 exited 0 \nlaunch local-1 1 1 1 running  \n"
    assert [launch.launch_id for launch in read_launches(answer)] == ["local-1"]


@pytest.mark.parametrize("separator", ["\u2028", "\x0b", "\x1d", "\x85", "\r"])
def test_words_of_a_worker_make_no_line(separator: str) -> None:
    forged = f"launch local-1 1 1 1 exited 1 error:{separator}launch local-2 1 1 1 running  \n"
    assert [launch.launch_id for launch in read_launches(forged)] == ["local-1"]


def test_numbers_that_are_no_numbers_of_ours_are_left_out() -> None:
    assert list(read_launches(f"launch local-1 {'9' * 5000} 1 1 running  \n")) == []
