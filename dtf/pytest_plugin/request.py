"""What the coordinator is told of a run before anything of it is collected."""

import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.owner import default_owner
from dtf.pytest_plugin.node import gather_worker_input
from dtf.pytest_plugin.plugin import import_path_at_start
from dtf.runner.pytest_options import PytestOptions, encode_literal
from dtf.settings.model import RunSettings

REVISION_TIMEOUT_SECONDS = 5.0
SHARED_PREFIXES = ("PYTEST_", "PYTHON")
"""Variables that workers get which do not see the run's directory."""


@dataclass(frozen=True)
class Facts:
    """What only pytest's own thread may ask pytest and its plug-ins."""

    root_dir: str
    working_dir: str
    arguments: list[str]
    worker_input: str
    base_temp: str
    testrun_uid: str = field(default_factory=lambda: secrets.token_hex(16))

    @classmethod
    def gather(cls, config: pytest.Config) -> "Facts":
        """The facts of a configured pytest. Raises ValueError for a plug-in's input that cannot be sent."""
        return cls(
            root_dir=str(config.rootpath),
            working_dir=str(config.invocation_params.dir),
            arguments=[str(argument) for argument in config.invocation_params.args],
            worker_input=encode_literal(gather_worker_input(config)),
            base_temp=base_temp(config),
        )


def create_request(
    facts: Facts, settings: RunSettings, suite: str, worker_count: int, run_dir: Path
) -> run_service_pb2.CreateRunRequest:
    """The request that creates the run."""
    specification = common_pb2.PytestSpec(
        root_dir=facts.root_dir,
        working_dir=facts.working_dir,
        arguments=facts.arguments,
        environment={name: os.environ[name] for name in os.environ if name.startswith(SHARED_PREFIXES)},
        testrun_uid=facts.testrun_uid,
        options_json=msgspec.json.encode(worker_options(facts, worker_count, run_dir)).decode(),
        import_path=[entry for entry in import_path_at_start if entry],
    )
    template = common_pb2.TaskTemplate(
        pytest=specification,
        retry=common_pb2.RetryPolicy(
            test_retries=settings.test_retries, infrastructure_retries=settings.infrastructure_retries
        ),
        timeout_seconds=settings.timeout_seconds,
    )
    return run_service_pb2.CreateRunRequest(
        request_id=secrets.token_hex(16),
        suite=suite,
        revision=revision(facts.root_dir),
        owner=default_owner(),
        templates=[template],
        labels=settings.labels,
    )


def worker_options(facts: Facts, worker_count: int, run_dir: Path) -> PytestOptions:
    """What workers must know beyond pytest's arguments."""
    return PytestOptions(
        host=socket.gethostname(),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        pytest_version=pytest.__version__,
        python_prefix=sys.prefix,
        argv=sys.argv,
        warn_options=sys.warnoptions,
        worker_count=worker_count,
        worker_input=facts.worker_input,
        run_dir=str(run_dir),
        base_temp=facts.base_temp,
    )


def base_temp(config: pytest.Config) -> str:
    """pytest's base of temporary directories; empty where its plug-in is off."""
    factory = getattr(config, "_tmp_path_factory", None)
    return "" if factory is None else str(factory.getbasetemp())


def revision(directory: str) -> str:
    """The revision that git has checked out; empty where there is none."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=REVISION_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
