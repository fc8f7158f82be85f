"""A coordinator and an analyzer that serve TLS: every caller of ours reaches them, and nobody without it."""

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from dtf.api.v1 import run_service_pb2, run_service_pb2_grpc
from tests.e2e.project import SETTINGS, Project

pytestmark = [pytest.mark.coordinator, pytest.mark.worker, pytest.mark.resource_manager]


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate of this test, and is not installed")
    made, key = directory / "certificate.pem", directory / "key.pem"
    arguments = (
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {made} "
        "-days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([openssl, *arguments.split()], check=True, capture_output=True, timeout=60)
    return made, key


def tls_settings(made: Path, key: Path) -> str:
    """A stack that serves TLS, and clients that know its authority."""
    served = f'tls_certificate_file = "{made}"\ntls_key_file = "{key}"\n'
    return f'{SETTINGS}{served}\n[run]\ncertificate_authority_file = "{made}"\n'


def test_a_whole_stack_works_over_tls(tmp_path: Path) -> None:
    project = Project(tmp_path, tls_settings(*make_certificate(tmp_path)))
    try:
        project.dtf("up")
        project.write("commands.txt", "true\ntrue\n")
        assert project.json("run", "--each", "commands.txt", "--json")["counts"]["passed"] == 2
        project.write("test_suite.py", "def test_it(): pass\n")
        assert "1 passed" in project.dtf("run", "test_suite.py", "-q")
        for address in (project.stack.server, project.stack.analysis):
            with grpc.insecure_channel(address) as plain:
                ask = run_service_pb2_grpc.RunServiceStub(plain).ListRuns
                with pytest.raises(grpc.RpcError) as refusal:
                    ask(run_service_pb2.ListRunsRequest(), timeout=30)
                assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        assert project.close() == []


def test_an_authority_for_other_servers_does_not_concern_the_embedded_stack(tmp_path: Path) -> None:
    made, _ = make_certificate(tmp_path)
    project = Project(tmp_path, f'{SETTINGS}\n[run]\ncertificate_authority_file = "{made}"\n')
    try:
        project.write("commands.txt", "true\n")
        assert project.json("run", "--each", "commands.txt", "--json")["counts"]["passed"] == 1
    finally:
        assert project.close() == []
