"""How a worker takes a join token, and whom it then talks to.

    --join TOKEN ───────┐ put into a file without a name, and the process starts itself anew:
    DTF_JOIN_TOKEN ─────┘ neither its command line nor its environment holds the token any more
    --join-file FILE ───▶ read, as that file is

Only with the right authority found at one of the token's addresses is there a Peer to talk to.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.ports.clock import Clock
from dtf.rpc.addresses import is_loopback
from dtf.rpc.channel import Peer
from dtf.rpc.invitation import Invitation, InvitationDamaged, parse_invitation
from dtf.rpc.pinning import Impostor, NoRoots, SpeaksPlain, TrustError, Unreachable, trusted_roots

TOKEN_VARIABLE = "DTF_JOIN_TOKEN"
NEW_TOKEN = "`dtf token create` beside the coordinator makes a new one"
PATIENCE_SECONDS = 30.0
"""How long an address is tried at which nobody answers yet."""
_BETWEEN_SECONDS = 0.5
_LONGEST_BYTES = 64 * 1024
_DESCRIPTORS = "/dev/fd/"
_STANDARD_ERROR = 2


@dataclass(frozen=True, slots=True)
class Hidden:
    """A command line and an environment without the token, which a descriptor holds."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


def hide_token(token: str | None, join_file: str | None) -> None:
    """If the token comes by the command line or the environment, start this process anew without; else return.

    Raises CommandError for one that comes in two ways.
    """
    if token is not None and join_file is not None:
        raise CommandError("--join and --join-file are both given", "leave one out", exit_code=ExitCode.USAGE)
    if join_file is not None:
        os.environ.pop(TOKEN_VARIABLE, None)  # the option goes before, and what runs here is to see neither
        return
    given = token if token is not None else os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return
    descriptor = os.memfd_create("dtf-join") if hasattr(os, "memfd_create") else _nameless_file()
    os.write(descriptor, given.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)
    hidden = without_token(sys.orig_argv, os.environ, token is not None, descriptor)
    os.execve(sys.executable, list(hidden.arguments), dict(hidden.environment))


def without_token(
    arguments: Sequence[str], environment: Mapping[str, str], is_argument: bool, descriptor: int
) -> Hidden:
    """The same command with the token behind a descriptor."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if is_argument and argument == "--join":
            next(rest, None)
        elif not (is_argument and argument.startswith("--join=")):
            kept.append(argument)
    others = {name: value for name, value in environment.items() if name != TOKEN_VARIABLE}
    return Hidden([*kept, "--join-file", f"{_DESCRIPTORS}{descriptor}"], others)


def _nameless_file() -> int:
    """A file that is gone from its directory already, where there is no memfd_create (it is Linux's)."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def read_invitation(join_file: str) -> Invitation:
    """The join token in a file. Raises CommandError."""
    try:
        with _opened(join_file) as file:
            text = file.read(_LONGEST_BYTES).decode("ascii", errors="replace")
        return parse_invitation(text)
    except InvitationDamaged as error:
        raise CommandError(str(error), NEW_TOKEN, exit_code=ExitCode.USAGE) from None
    except OSError as error:
        raise CommandError(
            f"the join token cannot be read from {join_file}: {error.strerror}",
            "--join-file names a file with the line that `dtf token create` printed",
            exit_code=ExitCode.USAGE,
        ) from None


def _opened(join_file: str) -> BinaryIO:
    """The file; a descriptor that this process was given is closed with it, so that nobody finds it there."""
    number = join_file.removeprefix(_DESCRIPTORS)
    if join_file.startswith(_DESCRIPTORS) and number.isdigit() and int(number) > _STANDARD_ERROR:
        return os.fdopen(int(number), "rb")
    return Path(join_file).open("rb")


async def peer_of(invitation: Invitation, addresses: Sequence[str], clock: Clock) -> Peer:
    """Whom to call, once the token's authority was found there. Raises CommandError."""
    until = clock.monotonic() + PATIENCE_SECONDS
    _refuse_plain(invitation, addresses)
    while True:
        try:
            roots = trusted_roots(addresses, invitation.trust)
            break
        except Unreachable as error:
            if clock.monotonic() >= until:
                raise _as_command_error(error) from None
        except TrustError as error:
            raise _as_command_error(error) from None
        await clock.sleep(_BETWEEN_SECONDS)
    return Peer(
        tuple(addresses), invitation.credential, roots=roots, server_name=invitation.trust.server_name
    )


def _refuse_plain(invitation: Invitation, addresses: Sequence[str]) -> None:
    """Raises CommandError where the secret would travel in the open."""
    open_ones = [address for address in addresses if not is_loopback(address)]
    if not invitation.trust.fingerprint and open_ones:
        raise CommandError(
            f"the join token is of a coordinator without TLS, and {open_ones[0]} is on another machine: "
            "nothing was sent",
            'let the coordinator listen beyond loopback, or set [coordinator] tls = "own", and make a new token',
        )


def _as_command_error(error: TrustError) -> CommandError:
    match error:
        case Impostor():
            return CommandError(
                f"{error}; nothing was sent",
                "another cluster answers there, or its certificates were changed since the token was made: "
                + NEW_TOKEN,
            )
        case SpeaksPlain():
            return CommandError(
                f"{error}, which the join token asks for; nothing was sent",
                "another program listens there, or the coordinator was started without TLS",
            )
        case NoRoots():
            return CommandError(
                str(error),
                "install the system's certificates (ca-certificates), or name them with SSL_CERT_FILE",
            )
        case _:
            return CommandError(
                str(error),
                "start the coordinator, or let the network through; --server names another address",
                exit_code=ExitCode.UNAVAILABLE,
            )
