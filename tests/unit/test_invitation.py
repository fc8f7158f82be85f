"""The line of a join token: whole or refused, and never shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.cli.errors import CommandError
from dtf.cli.joining import read_invitation, without_token
from dtf.cli.token_command import parse_duration
from dtf.rpc.invitation import PREFIX, Invitation, InvitationDamaged, Trust, parse_invitation

INVITATION = Invitation(
    addresses=("10.0.0.5:7070", "[fd00::2]:7071"),
    trust=Trust("ab" * 32, "coordinator.dtf.internal"),
    cluster_id="c1",
    token_id="t1",
    secret="the-secret",
    pool="gpu",
    expires_at=1_700_000_000.0,
)


def test_a_line_says_what_it_was_made_of() -> None:
    assert parse_invitation(INVITATION.text) == INVITATION
    assert INVITATION.text.isascii()
    assert INVITATION.text.split() == [INVITATION.text]


def test_a_line_that_was_wrapped_when_it_was_copied_is_whole() -> None:
    text = INVITATION.text
    assert parse_invitation(f"  {text[:60]}\n  {text[60:]}\r\n") == INVITATION


@given(st.integers(0, len(INVITATION.text) - 1), st.sampled_from("aZ09_-"))
def test_a_line_that_was_cut_or_changed_is_refused(index: int, other: str) -> None:
    text = INVITATION.text
    for damaged in (text[:index], text[:index] + other + text[index + 1 :]):
        if damaged != text:
            with pytest.raises(InvitationDamaged):
                parse_invitation(damaged)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", f"does not begin with {PREFIX}"),
        ("dtfjoin2_abc", "is of another version of dtf"),
        (PREFIX, "is damaged"),
        (INVITATION.text[:-1], "copy the whole line"),
    ],
)
def test_what_is_no_token_is_said_without_showing_it(text: str, said: str) -> None:
    with pytest.raises(InvitationDamaged, match=said) as refusal:
        parse_invitation(text)
    assert text.removeprefix(PREFIX) == "" or text not in str(refusal.value)


def test_the_secret_is_not_shown() -> None:
    assert "the-secret" not in repr(INVITATION)
    assert "the-secret" in INVITATION.credential


def test_a_token_leaves_the_command_line_and_the_environment() -> None:
    arguments = ["python", "-m", "dtf.cli.main", "worker", "--join", "T", "--name", "w"]
    hidden = without_token(arguments, {"DTF_JOIN_TOKEN": "T", "HOME": "/h"}, True, 7)
    assert hidden.arguments == [*arguments[:4], "--name", "w", "--join-file", "/dev/fd/7"]
    assert hidden.environment == {"HOME": "/h"}
    assert without_token(["dtf", "worker", "--join=T"], {}, True, 3).arguments == [
        *("dtf", "worker", "--join-file", "/dev/fd/3")
    ]


def test_a_file_without_a_token_is_named() -> None:
    with pytest.raises(CommandError, match="cannot be read from /no/such: No such file"):
        read_invitation("/no/such")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "0s", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="is no duration"):
        parse_duration(text)
