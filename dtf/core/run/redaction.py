"""Commits without the names in them, or without output, from which the same decisions still follow.

Theory. Whatever a decision rests on stays: identifiers, numbers, times, pools, resources, and the labels
that say what a machine is. A name becomes a pseudonym of the same length in bytes, word by word and
the same each time, so that what was equal is equal, events are cut where they were, and files,
classes and parameters of a case still show; output becomes as many x. Texts that the core writes
itself name workers and pools, which stay, and labels, which are replaced in them as well; in texts that were reported, the names
that were replaced elsewhere are replaced too.

    names    suites, revisions, owners, labels of runs, workers and needs (but arch, os, python, gpu,
             gpu_model), tasks, cases, payloads, commands, paths, hosts
    output   what cases printed, returned and said of their failures; reports; standard input

An event of a kind that is not known here is refused: what it holds cannot be judged.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from dtf.api.v1 import common_pb2, events_pb2

WHAT = ("names", "output")
_WORD = re.compile(r"(\\(?:u[0-9a-fA-F]{4}|.))|([^\W_]+)", re.DOTALL)
_KEPT = frozenset({"test", "tests", "py", "true", "false", "null", "pytest", "python", "bin", "usr", "tmp"})
_KEPT_LABELS = frozenset({"arch", "os", "python", "gpu", "gpu_model"})
_LONGEST_KEPT_NUMBER = 4
_SHORTEST_FOUND_NAME = 5
_LETTERS = "abcdefghijkmnopqrstuvwxyz"
_ATTEMPTS = 64


class NotRedactable(ValueError):
    """Something cannot be redacted, so that it must not be handed on; the message says what."""


@dataclass(slots=True)
class Redactor:
    """Redacts commits; one a capsule, so that a name has one pseudonym in it."""

    key: bytes
    """Random: without it nobody can tell a pseudonym's name by trying names."""
    names: bool
    output: bool
    _words: dict[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _full_names: dict[str, str] = field(default_factory=dict)
    _reasons: dict[str, str] = field(default_factory=dict)
    _needs: dict[str, str] = field(default_factory=dict)
    """"key=value" of a label as the core writes it in reasons, and what it becomes."""

    def redact(self, commit: events_pb2.Commit) -> events_pb2.Commit:
        """The commit without what is to be left out; it is changed in place. Raises NotRedactable."""
        for event in commit.events:
            kind = event.WhichOneof("event")
            redact = _REDACTIONS.get(kind or "")
            if kind is None or redact is None:
                raise NotRedactable(f"an event {kind or 'of a newer dtf'} is not known to the redaction")
            redact(self, getattr(event, kind))
        return commit

    def text(self, text: str) -> str:
        """A name or a text made of names."""
        if not self.names or not text:
            return text
        known = self._full_names.get(text)
        if known is None:
            known = self._full_names[text] = _WORD.sub(self._substitute, text)
        return known

    def texts(self, column: Any) -> None:
        """A repeated field of names."""
        column[:] = [self.text(text) for text in column]

    def reported(self, text: str) -> str:
        """A text that a worker, a client or the core wrote: with the names that are known by now replaced."""
        if not self.names or not text:
            return text
        known = self._reasons.get(text)
        if known is None:
            known = text
            for name, pseudonym in self._full_names.items():
                if len(name) >= _SHORTEST_FOUND_NAME and name in known:
                    known = known.replace(name, pseudonym)
            self._reasons[text] = known
        return known

    def labels(self, labels: Any) -> None:
        """Labels by which tasks are placed, on either side."""
        for key in list(labels):
            if key not in _KEPT_LABELS:
                value = labels[key]
                labels[key] = self.text(value)
                self._needs[f"{key}={value}"] = f"{key}={labels[key]}"

    def placement(self, reason: str) -> str:
        """A reason of the core's own that names what tasks need."""
        if not self.names:
            return reason
        for need in sorted(self._needs, key=len, reverse=True):
            reason = reason.replace(need, self._needs[need])
        return reason

    def printed(self, text: str) -> str:
        """Output: as many x as it had bytes."""
        if self.output:
            return "x" * len(text.encode())
        return self.reported(text)

    def detail(self, encoded: bytes) -> bytes:
        """An encoded CaseDetail, of the same length. Raises NotRedactable."""
        if not encoded or not (self.output or self.names):
            return encoded
        try:
            detail = events_pb2.CaseDetail.FromString(encoded)
        except DecodeError as error:
            raise NotRedactable("a case's detail cannot be read") from error
        detail.message = self.printed(detail.message)
        detail.output_tail = self.printed(detail.output_tail)
        detail.value_json = self.printed(detail.value_json)
        # The names in serialized reports are everywhere; with either wish nothing of them stays.
        detail.reports_json = b"x" * len(detail.reports_json)
        for found in detail.found:
            found.name = self.text(found.name)
            found.message = self.printed(found.message)
        for measurement in detail.measurements:
            measurement.case_name = self.text(measurement.case_name)
        return detail.SerializeToString()

    def details(self, column: Any) -> None:
        """A repeated field of encoded CaseDetails."""
        column[:] = [self.detail(encoded) for encoded in column]

    def _substitute(self, match: "re.Match[str]") -> str:
        if match[1] is not None:
            return match[1]
        word = match[2]
        is_number = word.isdecimal() and len(word) <= _LONGEST_KEPT_NUMBER
        if is_number or len(word) == 1 or word.lower() in _KEPT:
            return word
        known = self._words.get(word)
        if known is None:
            known = self._words[word] = self._new_word(word)
            self._taken.add(known)
        return known

    def _new_word(self, word: str) -> str:
        """A pseudonym that no other word has, as long as there are any of this length."""
        length = len(word.encode())
        candidate = ""
        for attempt in range(_ATTEMPTS):
            candidate = self._letters(f"{attempt} {word}", length)
            if candidate not in self._taken:
                break
        return candidate

    def _letters(self, seed: str, length: int) -> str:
        letters: list[str] = []
        block = 0
        while len(letters) < length:
            digest = hashlib.blake2b(f"{block} {seed}".encode(), key=self.key).digest()
            letters.extend(_LETTERS[byte % len(_LETTERS)] for byte in digest)
            block += 1
        return "".join(letters[:length])


def _keep(_redactor: Redactor, _said: Any) -> None:
    """Nothing in it is a name or output."""


def _leader_elected(redactor: Redactor, said: events_pb2.LeaderElected) -> None:
    said.leader = redactor.text(said.leader)
    if said.HasField("accepted_loss"):
        said.accepted_loss.accepted_by = redactor.text(said.accepted_loss.accepted_by)


def _run_created(redactor: Redactor, said: events_pb2.RunCreated) -> None:
    said.suite = redactor.text(said.suite)
    said.revision = redactor.text(said.revision)
    said.owner = redactor.text(said.owner)
    for key, value in said.labels.items():
        said.labels[key] = redactor.text(value)
    for template in said.templates:
        _template(redactor, template)


def _template(redactor: Redactor, template: common_pb2.TaskTemplate) -> None:
    redactor.labels(template.requirements.labels)
    match template.WhichOneof("spec"):
        case "pytest":
            pytest = template.pytest
            pytest.root_dir = redactor.text(pytest.root_dir)
            pytest.working_dir = redactor.text(pytest.working_dir)
            redactor.texts(pytest.arguments)
            redactor.texts(pytest.import_path)
            pytest.options_json = redactor.text(pytest.options_json)
            _environment(redactor, pytest.environment)
        case "command":
            command = template.command
            redactor.texts(command.argv)
            command.working_dir = redactor.text(command.working_dir)
            command.junit_xml = redactor.text(command.junit_xml)
            command.benchmark_json = redactor.text(command.benchmark_json)
            command.stdin = b"x" * len(command.stdin)
            _environment(redactor, command.environment)
        case "callable":
            target = template.callable
            target.function = redactor.text(target.function)
            target.working_dir = redactor.text(target.working_dir)
            redactor.texts(target.import_path)
            _environment(redactor, target.environment)
        case _:
            pass


def _environment(redactor: Redactor, environment: Any) -> None:
    """Values of variables are left out with either wish: secrets are given so."""
    for name in list(environment):
        environment[name] = "x" * len(environment[name].encode())


def _tasks_submitted(redactor: Redactor, said: events_pb2.TasksSubmitted) -> None:
    redactor.texts(said.names)
    redactor.texts(said.payloads)
    redactor.texts(said.case_names)


def _asked(redactor: Redactor, said: Any) -> None:
    """Somebody asked for it, with a reason."""
    said.requested_by = redactor.text(said.requested_by)
    said.reason = redactor.text(said.reason)


def _worker_released(redactor: Redactor, said: events_pb2.WorkerReleased) -> None:
    said.requested_by = redactor.text(said.requested_by)


def _pool_resumed(redactor: Redactor, said: events_pb2.PoolResumed) -> None:
    said.requested_by = redactor.text(said.requested_by)


def _results_accepted(redactor: Redactor, said: events_pb2.ResultsAccepted) -> None:
    redactor.details(said.details)


def _attempts_ended(redactor: Redactor, said: events_pb2.AttemptsEnded) -> None:
    said.reasons[:] = [redactor.reported(reason) for reason in said.reasons]
    redactor.details(said.details)


def _worker_registered(redactor: Redactor, said: events_pb2.WorkerRegistered) -> None:
    said.host = redactor.text(said.host)
    redactor.labels(said.labels)


def _token_issued(redactor: Redactor, said: events_pb2.TokenIssued) -> None:
    said.issued_by = redactor.text(said.issued_by)


def _token_revoked(redactor: Redactor, said: events_pb2.TokenRevoked) -> None:
    said.revoked_by = redactor.text(said.revoked_by)
    said.reason = redactor.text(said.reason)


def _placement(redactor: Redactor, said: Any) -> None:
    """Why tasks wait, or were given up."""
    said.reason = redactor.placement(said.reason)


_REDACTIONS: dict[str, Callable[[Redactor, Any], None]] = {
    "leader_elected": _leader_elected,
    "run_created": _run_created,
    "tasks_submitted": _tasks_submitted,
    "submission_sealed": _keep,
    "placement_changed": _placement,
    "leases_granted": _keep,
    "results_accepted": _results_accepted,
    "results_refused": _keep,
    "attempts_ended": _attempts_ended,
    "leases_released": _keep,
    "run_cancel_requested": _asked,
    "run_finished": _keep,
    "worker_registered": _worker_registered,
    "token_issued": _token_issued,
    "token_revoked": _token_revoked,
    "worker_drain_requested": _asked,
    "worker_quarantined": _asked,
    "worker_released": _worker_released,
    "worker_lost": _keep,
    "worker_left": _keep,
    "tasks_abandoned": _placement,
    "runs_retired": _keep,
    "workers_forgotten": _keep,
    "pool_scaled": _asked,
    "pool_paused": _asked,
    "pool_resumed": _pool_resumed,
}


def parse_wishes(words: Iterable[str]) -> frozenset[str]:
    """What is to be redacted, of "names,output". Raises ValueError."""
    wanted = frozenset(part.strip() for word in words for part in word.split(",") if part.strip())
    unknown = sorted(wanted - set(WHAT))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be redacted; {', '.join(WHAT)} can")
    return wanted
