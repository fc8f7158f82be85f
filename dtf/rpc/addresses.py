"""Addresses of servers, as host:port: read, and as others reach one that listens here."""

import ipaddress
import socket
from collections.abc import Sequence

import psutil

WILDCARDS = ("0.0.0.0", "::", "")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def parse_addresses(text: str) -> tuple[str, ...]:
    """ "host:port[,host:port…]" → its parts. Raises ValueError naming the part at fault."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise ValueError("no address given; expected host:port")
    for part in parts:
        host, _, port = part.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"address {part!r} is not host:port")
    return parts


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a host:port."""
    host = host_of(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """The host of host:port, without brackets."""
    return address.rpartition(":")[0].strip("[]")


def is_wildcard(address: str) -> bool:
    """Whether a host:port stands for every address of this machine."""
    return host_of(address) in WILDCARDS


def reachable_address(listen: str) -> str:
    """`listen`, or of a wildcard the address of this machine from which others are reached."""
    if not is_wildcard(listen):
        return listen
    host = _outward_host()
    port = listen.rpartition(":")[2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def local_address(listen: str) -> str:
    """`listen`, or of a wildcard the loopback address: how processes of this machine reach it."""
    if not is_wildcard(listen):
        return listen
    port = listen.rpartition(":")[2]
    return f"[::1]:{port}" if host_of(listen) == "::" else f"127.0.0.1:{port}"


def names_of_machine(listen: str, more: Sequence[str] = ()) -> list[str]:
    """Names and addresses that a server's certificate is to be good for: of `listen`, and of others (host:port)."""
    hosts = [*map(host_of, more), *LOOPBACK_NAMES, socket.gethostname()]
    if is_wildcard(listen):
        hosts += [
            entry.address.partition("%")[0]
            for entries in psutil.net_if_addrs().values()
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6)
        ]
    else:
        hosts.insert(0, host_of(listen))
    return list(dict.fromkeys(host for host in hosts if host and host not in WILDCARDS))


def _outward_host() -> str:
    """The address that packets to the world would leave from; nothing is sent to find out."""
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return socket.gethostname()
