"""A TLS connection that trusts nothing never becomes one without TLS."""

import ssl
from pathlib import Path

import pytest

from dtf.adapters.certificates import OwnAuthority, OwnCertificates
from dtf.adapters.system_clock import SystemClock
from dtf.rpc.channel import Peer
from dtf.rpc.invitation import SYSTEM_ROOTS, Trust
from dtf.rpc.pinning import NoRoots, fingerprint_of, split_chain, trusted_roots

ADDRESSES = ("build.example.org:7711",)


@pytest.fixture
def authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's directory of authorities, in the place of a file: empty."""
    directory = tmp_path / "certs"
    directory.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    return directory


def test_a_machine_without_authorities_is_told_so_and_nothing_is_sent(authorities: Path) -> None:
    (authorities / "README").write_text("no certificate")
    with pytest.raises(NoRoots, match="has none; nothing was sent"):
        trusted_roots(ADDRESSES, Trust(SYSTEM_ROOTS))


def test_authorities_that_lie_in_a_directory_are_trusted(authorities: Path, tmp_path: Path) -> None:
    clock = SystemClock()
    made = OwnCertificates(OwnAuthority(tmp_path / "own", clock), "coordinator", lambda: ["localhost"], clock)
    authority = split_chain(made.current().chain)[-1]
    (authorities / "0a1b2c3d.0").write_text(ssl.DER_cert_to_PEM_cert(authority))
    (authorities / "0a1b2c3d.1").write_text("half of one")
    roots = trusted_roots(ADDRESSES, Trust(SYSTEM_ROOTS))
    assert roots is not None
    assert list(map(fingerprint_of, split_chain(roots))) == [fingerprint_of(authority)]
    assert Peer(ADDRESSES, roots=roots).is_secure


def test_a_peer_is_plain_only_where_that_is_said() -> None:
    assert trusted_roots(ADDRESSES, Trust()) is None
    assert not Peer(ADDRESSES, "token", roots=None).is_secure
    for nothing in (b"", b"\n"):
        with pytest.raises(ValueError, match="no certificate is trusted"):
            Peer(ADDRESSES, "token", roots=nothing)
