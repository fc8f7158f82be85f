"""Calls a Python function for each case: what `module:function` tasks run in.

Arguments come as the case's payload in JSON: an array is positional, an object is keywords, nothing
is none. A return value that JSON can say becomes the case's value; an exception fails the case,
its last line as the message and its traceback in the output. Coroutine functions are run to their
end on a loop of their own. What the function prints through sys.stdout or sys.stderr is the case's
output; what it writes to the descriptors themselves goes to the process's own.
"""

import asyncio
import importlib
import inspect
import io
import json
import os
import resource
import site
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from dtf.runner.case_queue import CaseQueue
from dtf.runner.channel import (
    CaseItem,
    Detail,
    Drop,
    Dropped,
    Finish,
    Flush,
    Prepare,
    Prepared,
    PrepareFailed,
    ResultItem,
    Run,
    RunnerChannel,
)
from dtf.runner.outbox import Outbox
from dtf.runner.status import StatusWriter

PASSED, FAILED, ERROR = 1, 2, 3
MAX_VALUE_BYTES = 16 * 1024
MAX_OUTPUT_BYTES = 1 << 20
"""Output of a case kept in memory; the middle of more is left out."""
LEFT_OUT = "\n[… output left out …]\n".encode()
MEMORY_SAMPLE_SECONDS = 0.001
"""Cases shorter than this are given the peak last seen: reading it takes as long as a no-op."""
_KIB = 1024 if sys.platform != "darwin" else 1
"""ru_maxrss is in KiB, on macOS in bytes."""

_decode_payload = msgspec.json.decode


class PayloadRefused(ValueError):
    """The payload is not what a call can take."""


class Finished(Exception):
    """The worker asked the process to end."""


def serve(channel: RunnerChannel, status: StatusWriter, prepare: Prepare) -> None:
    """Call the function of `prepare` for each case until told to finish."""
    try:
        function = load_function(prepare.spec)
    except BaseException as error:
        channel.send(PrepareFailed(one_line(error), traceback.format_exc()))
        return
    channel.send(Prepared(0))
    try:
        CallableSession(channel, status, function).run()
    except Finished:
        return


def load_function(spec: dict[str, Any]) -> Callable[..., Any]:
    """Enter the run's directory and environment and import its function."""
    os.environ.update(spec.get("environment") or {})
    if working_dir := spec.get("working_dir"):
        os.chdir(working_dir)
    for directory in spec.get("site_dirs") or ():
        site.addsitedir(directory)
    sys.path[:0] = spec.get("import_path") or [working_dir or str(Path.cwd())]
    name = spec["function"]
    module_name, separator, path = name.partition(":")
    if not separator or not path:
        raise ValueError(f"the function is named {name!r}; expected module:function")
    target: Any = importlib.import_module(module_name)
    for part in path.split("."):
        target = getattr(target, part)
    if not callable(target):
        raise TypeError(f"{name} is a {type(target).__name__}; expected something to call")
    return awaited(target) if inspect.iscoroutinefunction(target) else target


def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, for callers that do not await."""

    def run(*positional: Any, **keywords: Any) -> Any:
        return asyncio.run(function(*positional, **keywords))

    return run


class CallableSession:
    """One function, many cases."""

    def __init__(self, channel: RunnerChannel, status: StatusWriter, function: Callable[..., Any]) -> None:
        self._channel = channel
        self._status = status
        self._function = function
        self._outbox = Outbox(channel, status)
        self._queue = CaseQueue()
        self._capture = Capture()
        self._peak_bytes = peak_memory_bytes()

    def run(self) -> None:
        """Run cases as they come. Raises Finished or ChannelClosed."""
        sys.stdout = sys.stderr = self._capture.text
        while True:
            if not self._queue:
                self._status.end()
                self._outbox.send()
                self._handle(self._channel.receive())
                continue
            if self._outbox.send_if_due():
                self._handle_waiting()
                continue
            self._run_case(self._queue.take())

    def _handle_waiting(self) -> None:
        while (message := self._channel.receive(block=False)) is not None:
            self._handle(message)

    def _handle(self, message: object) -> None:
        match message:
            case Run(items):
                self._queue.extend(items)
            case Drop(fences):
                self._channel.send(Dropped(self._queue.drop(fences)))
            case Flush():
                pass  # Nothing is held back: a call has no successor to know of.
            case Finish():
                raise Finished
            case _:
                raise ValueError(f"got {message!r}; expected Run, Drop, Flush or Finish")

    def _run_case(self, item: CaseItem) -> None:
        self._status.begin(item.fence, item.case, item.timeout_seconds)
        started_at = time.time()  # noqa: TID251 - the runner is below the ports; a wall-clock stamp for people
        cpu = time.process_time()
        began = time.perf_counter()
        verdict, detail = self._call(item.payload)
        duration = time.perf_counter() - began
        cpu = time.process_time() - cpu
        if duration > MEMORY_SAMPLE_SECONDS:
            self._peak_bytes = peak_memory_bytes()
        if self._capture.has_text:
            detail = detail or Detail()
            detail.output = self._capture.take() + detail.output
        self._outbox.add(
            ResultItem(
                item.fence,
                item.case,
                verdict,
                duration,
                cpu,
                self._peak_bytes,
                started_at,
                item.is_last_of_attempt,
                detail,
            )
        )

    def _call(self, payload: str) -> tuple[int, Detail | None]:
        """The verdict, and what there is to say."""
        try:
            value = self._function() if not payload else call_with(self._function, payload)
        except PayloadRefused as error:
            return ERROR, Detail(message=str(error))
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt: a case may not end the process for the others.
            return FAILED, Detail(message=one_line(error), output=case_traceback(error))
        return PASSED, None if value is None else value_detail(value)


def call_with(function: Callable[..., Any], payload: str) -> Any:
    """Call `function` with the arguments that `payload` spells. Raises PayloadRefused."""
    try:
        arguments = _decode_payload(payload)
    except msgspec.DecodeError as error:
        raise PayloadRefused(f"the payload is not JSON ({error}): {payload[:80]!r}") from None
    if isinstance(arguments, list):
        return function(*arguments)
    if isinstance(arguments, dict):
        return function(**arguments)
    raise PayloadRefused(f"the payload is {payload[:80]!r}; expected a JSON array or object of arguments")


def value_detail(value: object) -> Detail | None:
    """The value in JSON, if JSON can say it."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    size = len(text.encode())
    if size > MAX_VALUE_BYTES:
        return Detail(
            message=f"the value is left out: {size} bytes of JSON, at most {MAX_VALUE_BYTES} are kept"
        )
    return Detail(value_json=text)


def one_line(error: BaseException) -> str:
    """The error's type and the first line of what it says."""
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:
        text = "(its text cannot be read)"
    return f"{type(error).__name__}: {text}"[:1000] if text else type(error).__name__


def case_traceback(error: BaseException) -> str:
    """The traceback from the user's function on."""
    own = (__file__,)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in own and trace.tb_next is not None:
        trace = trace.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:
        return one_line(error) + "\n"


def peak_memory_bytes() -> int:
    """The most resident memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


class Capture(io.BytesIO):
    """What a case writes to sys.stdout and sys.stderr; of very much, the ends."""

    def __init__(self) -> None:
        super().__init__()
        self._head = b""
        self.text = io.TextIOWrapper(self, encoding="utf-8", errors="backslashreplace", write_through=True)

    @property
    def has_text(self) -> bool:
        """Whether anything was written since the last `take`."""
        return self.tell() > 0

    def fileno(self) -> int:
        """The process's own standard error, for what needs a descriptor (faulthandler, subprocesses)."""
        return 2

    def close(self) -> None:
        """Stay open: a case that closes sys.stdout closes it for itself only."""

    def write(self, data: Any) -> int:
        """Keep `data`."""
        written = super().write(data)
        if self.tell() > MAX_OUTPUT_BYTES:
            self._shrink()
        return written

    def _shrink(self) -> None:
        content = self.getvalue()
        half = MAX_OUTPUT_BYTES // 2
        if not self._head:
            self._head = content[:half] + LEFT_OUT
        self._restart(content[-half // 2 :])

    def _restart(self, content: bytes) -> None:
        self.seek(0)
        self.truncate()
        super().write(content)

    def take(self) -> str:
        """What was written since the last time."""
        text = (self._head + self.getvalue()).decode(errors="replace")
        self._head = b""
        self._restart(b"")
        return text
