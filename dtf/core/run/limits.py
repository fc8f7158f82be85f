"""What a request may hold. Every fault of a request is found before it is refused."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from dtf.api.v1 import common_pb2
from dtf.core.run.commands import FieldViolation, InvalidRequest

MAX_EVENT_BYTES = 192 * 1024
"""Events are cut at this, so that none, with its envelope, is above 256 KiB."""
MAX_NAME_LENGTH = 4096
MAX_PAYLOAD_BYTES = 16 * 1024
MAX_DETAIL_BYTES = 128 * 1024
"""Half an event: 16 KiB of reports, and room for the cases of a result file."""
MAX_REASON_LENGTH = 4096
MAX_TASKS_PER_MESSAGE = 4096
MAX_REQUEST_ID_LENGTH = 128
MAX_SUITE_LENGTH = 200
MAX_LABELS = 64
MAX_FINDING_ID_LENGTH = 64
MAX_CONFIRMATIONS = 1000
"""Runs made to confirm one finding."""
MAX_LABEL_LENGTH = 1024
MAX_TEMPLATES = 1000
MAX_PRIORITY = 1_000_000
MAX_SECONDS = 1e9
MAX_CPUS = 1e6
MAX_MEMORY_BYTES = 2**60
MAX_GPUS = 65_536
MAX_RETRIES = 1000
MAX_SLOTS = 4096
MAX_POSITION = 2**31 - 1
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Faults:
    """Collects the faults of one request."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Note one fault."""
        self._violations.append(FieldViolation(field, description))

    def text(self, field: str, value: str, least: int, most: int) -> None:
        """A text must have `least` to `most` characters."""
        if not least <= len(value) <= most:
            self.add(field, f"has {len(value)} characters; {least} to {most} are allowed")

    def number(self, field: str, value: float, least: float, most: float) -> None:
        """A number must be in [least, most]; what is not a number is not."""
        if not least <= value <= most:
            self.add(field, f"is {value:g}; {least:g} to {most:g} is allowed")

    def labels(self, field: str, labels: Mapping[str, str]) -> None:
        """Labels must be few and short."""
        if len(labels) > MAX_LABELS:
            self.add(field, f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
        for key, value in labels.items():
            self.text(f"{field}[{key[:40]!r}] key", key, 1, MAX_LABEL_LENGTH)
            self.text(f"{field}[{key[:40]!r}]", value, 0, MAX_LABEL_LENGTH)

    def resources(self, field: str, resources: common_pb2.Resources) -> None:
        """Amounts must be finite and not negative."""
        self.number(f"{field}.cpus", resources.cpus, 0, MAX_CPUS)
        self.number(f"{field}.memory_bytes", resources.memory_bytes, 0, MAX_MEMORY_BYTES)
        self.number(f"{field}.gpus", resources.gpus, 0, MAX_GPUS)

    def refuse_if_any(self, what: str) -> None:
        """Raise InvalidRequest with every fault noted."""
        if self._violations:
            self.refuse(what)

    def refuse(self, what: str) -> NoReturn:
        """Raise InvalidRequest."""
        first = self._violations[0] if self._violations else FieldViolation("", "")
        more = f" (and {len(self._violations) - 1} more)" if len(self._violations) > 1 else ""
        raise InvalidRequest(
            f"{what}: {first.field} {first.description}{more}", violations=self._violations[:100]
        )


def check_template(faults: Faults, field: str, template: common_pb2.TaskTemplate) -> None:
    """A template must say what to run and ask for amounts that can exist."""
    match template.WhichOneof("spec"):
        case "callable":
            module, _, function = template.callable.function.partition(":")
            if not module or not function:
                faults.add(f"{field}.callable.function", 'must be "module:function"')
        case None:
            faults.add(f"{field}.spec", "is not set; one of pytest, command and callable is needed")
        case _:
            pass
    faults.resources(f"{field}.requirements.resources", template.requirements.resources)
    faults.labels(f"{field}.requirements.labels", template.requirements.labels)
    faults.text(f"{field}.requirements.pool", template.requirements.pool, 0, MAX_LABEL_LENGTH)
    faults.number(f"{field}.retry.test_retries", template.retry.test_retries, 0, MAX_RETRIES)
    faults.number(
        f"{field}.retry.infrastructure_retries", template.retry.infrastructure_retries, 0, MAX_RETRIES
    )
    faults.number(f"{field}.timeout_seconds", template.timeout_seconds, 0, MAX_SECONDS)
    if template.HasField("workspace"):
        _check_workspace(faults, f"{field}.workspace", template.workspace)


def _check_workspace(faults: Faults, field: str, workspace: common_pb2.Workspace) -> None:
    """A workspace is either an archive or a path; what would be joined to paths must be what it says."""
    if bool(workspace.path) == workspace.HasField("archive"):
        faults.add(field, "has archive and path, or neither; exactly one of them is needed")
    for name, path in (("root", workspace.root), ("path", workspace.path or "/")):
        faults.text(f"{field}.{name}", path, 1, MAX_REASON_LENGTH)
        if not path.startswith("/"):
            faults.add(f"{field}.{name}", f"is {path[:80]!r}; expected an absolute path")
    if workspace.HasField("archive"):
        for name, digest in (("digest", workspace.digest), ("archive.digest", workspace.archive.digest)):
            if not _DIGEST.fullmatch(digest):
                faults.add(f"{field}.{name}", "is not 64 lower-case hexadecimal digits")
    faults.number(f"{field}.setup_timeout_seconds", workspace.setup_timeout_seconds, 0, MAX_SECONDS)


def is_duration(seconds: float) -> bool:
    """Whether a worker may have measured it."""
    return 0 <= seconds <= MAX_SECONDS


def are_durations(column: Sequence[float]) -> bool:
    """Whether a worker may have measured each of them."""
    if not column:
        return True
    values = list(column)
    # NaN compares false with everything, so min() can miss it and the sum cannot.
    return math.isfinite(sum(values)) and min(values) >= 0 and max(values) <= MAX_SECONDS
