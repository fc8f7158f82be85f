"""An authority of our own: made once, renewed in time, rotated without cutting anybody off who trusts the former."""

import os
import ssl
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from dtf.adapters.certificates import SERVER_NAME, OwnAuthority, OwnCertificates, describe
from dtf.adapters.system_clock import SystemClock
from dtf.rpc.addresses import local_address, names_of_machine, reachable_address
from dtf.rpc.certificates import CertificateError, CertificatePair, FileCertificates
from dtf.rpc.invitation import SYSTEM_ROOTS
from dtf.rpc.pinning import fingerprint_of, split_chain
from tests.fakes import FakeClock

DAY = 86_400.0
NAMES = ["10.0.0.5", "build.example.org"]


class Rig:
    """An authority in a directory, in virtual time that begins some days ago: OpenSSL verifies in real time."""

    def __init__(self, directory: Path, days_ago: float = 0) -> None:
        self.directory = directory
        self.clock = FakeClock(SystemClock().now_ns() - int(days_ago * DAY * 1e9))
        self.authority = OwnAuthority(directory, self.clock)
        self.names: Sequence[str] = NAMES

    def certificates(self) -> OwnCertificates:
        return OwnCertificates(self.authority, "coordinator", lambda: self.names, self.clock)

    def verifies(self, pair: CertificatePair, roots: bytes, name: str = SERVER_NAME) -> bool:
        """Whether a TLS client that trusts `roots` alone accepts the server by this name."""
        return handshake(pair, roots, name, self.directory)


def handshake(pair: CertificatePair, roots: bytes, name: str, directory: Path) -> bool:
    path = directory / "pair-of-the-test"
    path.write_bytes(pair.key + pair.chain)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(path)
    client.load_verify_locations(cadata=roots.decode())
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC does
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "tls")


def pinned(pair: CertificatePair, fingerprint: str) -> bytes:
    """What a worker trusts that has this fingerprint."""
    (found,) = [item for item in split_chain(pair.chain) if fingerprint_of(item) == fingerprint]
    return ssl.DER_cert_to_PEM_cert(found).encode()


def test_a_server_is_trusted_by_the_authority_and_by_the_fingerprint_under_each_of_its_names(
    rig: Rig,
) -> None:
    own = rig.certificates()
    pair, trust = own.current(), own.trust()
    assert trust.server_name == SERVER_NAME
    for roots in (rig.authority.certificate_file.read_bytes(), pinned(pair, trust.fingerprint)):
        for name in (SERVER_NAME, *NAMES):
            assert rig.verifies(pair, roots, name)
        assert not rig.verifies(pair, roots, "other.example.org")
    assert not rig.verifies(pair, Rig(rig.directory / "other").authority.load().chain_pem)


def test_nobody_but_its_owner_can_read_the_files(rig: Rig) -> None:
    rig.certificates().current()
    assert stat.S_IMODE(rig.directory.stat().st_mode) == 0o700
    for path in rig.directory.glob("*.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_it_is_made_once_though_many_ask(rig: Rig) -> None:
    pairs: list[CertificatePair] = []
    threads = [
        threading.Thread(target=lambda: pairs.append(Rig(rig.directory).certificates().current()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pairs) == 8
    assert len(set(pairs)) == 1


async def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "tls", days_ago=62)
    own = rig.certificates()
    first = own.current()
    await rig.clock.advance(59 * DAY)
    assert own.current() == first
    await rig.clock.advance(3 * DAY)
    second = own.current()
    assert second != first
    assert rig.verifies(second, rig.authority.certificate_file.read_bytes()), "the authority is the same"


def test_a_name_that_is_missing_is_added_and_the_others_are_kept(rig: Rig) -> None:
    rig.certificates().current()
    rig.names = ["10.0.0.6"]
    rig.certificates().current()
    (role, certificate), *others = rig.authority.servers()
    assert (role, others) == ("coordinator", [])
    assert describe(certificate)["names"] == [SERVER_NAME, "10.0.0.6", *NAMES]


def test_after_a_rotation_who_trusts_the_former_authority_still_gets_in_and_old_tokens_do_not(
    rig: Rig,
) -> None:
    own = rig.certificates()
    before, old = own.trust(), rig.authority.certificate_file.read_bytes()
    rig.authority.rotate()
    pair, after = own.current(), own.trust()
    new = rig.authority.certificate_file.read_bytes()
    assert new != old
    assert rig.verifies(pair, old)
    assert rig.verifies(pair, new)
    assert rig.verifies(pair, pinned(pair, after.fingerprint))
    assert before.fingerprint not in map(fingerprint_of, split_chain(pair.chain))


def test_a_rotation_that_distrusts_the_former_authority_ends_all_that_rests_on_it(rig: Rig) -> None:
    own = rig.certificates()
    own.current()
    old = rig.authority.certificate_file.read_bytes()
    rig.authority.rotate()
    rig.authority.rotate(keeps_former=False)
    pair = own.current()
    assert rig.authority.former() is None
    assert not rig.verifies(pair, old)
    assert rig.verifies(pair, rig.authority.certificate_file.read_bytes())


async def test_an_authority_that_expired_says_what_to_do(rig: Rig) -> None:
    rig.certificates().current()
    await rig.clock.advance(3651 * DAY)
    with pytest.raises(CertificateError, match=r"expired on 20\d\d-\d\d-\d\d; `dtf certificates rotate`"):
        rig.certificates().current()


def test_an_authority_without_its_key_is_not_replaced_by_another(rig: Rig) -> None:
    rig.certificates().current()
    (rig.directory / "authority-key.pem").unlink()
    with pytest.raises(
        CertificateError, match=r"authority-key\.pem is missing.*put the key back from a copy"
    ):
        rig.certificates().current()


def test_a_damaged_file_is_named(rig: Rig) -> None:
    rig.certificates().current()
    (rig.directory / "authority-key.pem").write_text("nothing")
    with pytest.raises(CertificateError, match=r"authority-key\.pem cannot be used.*put it back from a copy"):
        rig.certificates().current()


def files(rig: Rig, pair: CertificatePair) -> tuple[Path, Path]:
    certificate, key = rig.directory / "operator.crt", rig.directory / "operator.key"
    certificate.write_bytes(pair.chain)
    key.write_bytes(pair.key)
    return certificate, key


def test_the_operators_files_are_read_again_when_they_change_and_served_while_they_are_half_written(
    rig: Rig,
) -> None:
    first = rig.certificates().current()
    certificate, key = files(rig, first)
    own = FileCertificates(str(certificate), str(key))
    assert own.current() == first
    assert own.trust().fingerprint == fingerprint_of(split_chain(first.chain)[-1])
    assert (
        FileCertificates(str(certificate), str(key), has_system_trust=True).trust().fingerprint
        == SYSTEM_ROOTS
    )
    other = Rig(rig.directory / "other").certificates().current()
    key.write_bytes(other.key)
    os.utime(key, ns=(1, 1))
    assert own.current() == first, "key and certificate do not belong together yet"
    certificate.write_bytes(other.chain)
    assert own.current() == other


def test_the_operators_files_must_be_there_at_first(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="a TLS file cannot be read"):
        FileCertificates(str(tmp_path / "a"), str(tmp_path / "b")).current()


def test_how_others_reach_a_server_that_listens_everywhere() -> None:
    assert reachable_address("10.0.0.5:7070") == "10.0.0.5:7070"
    assert local_address("0.0.0.0:7070") == "127.0.0.1:7070"
    assert local_address("[::]:7070") == "[::1]:7070"
    assert reachable_address("0.0.0.0:7070").endswith(":7070")
    assert not reachable_address("0.0.0.0:7070").startswith("0.0.0.0")
    assert {"10.0.0.5", "localhost", "gate.example.org"} <= set(
        names_of_machine("10.0.0.5:1", ["gate.example.org:9"])
    )
    assert "0.0.0.0" not in names_of_machine("0.0.0.0:1")
