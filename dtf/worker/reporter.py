"""Turns what happened to leases into what is said to the coordinator.

What is large goes to the blob store or to the attempt's output first, so that nothing refers to
what is not stored; an attempt's end is said after the last of its results.
"""

import asyncio
import logging
from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.runner.channel import Detail, ResultItem
from dtf.worker.leases import Lease, LeaseBook
from dtf.worker.outbound import Outbound
from dtf.worker.uploads import Uploads

INLINE_BYTES = 16 * 1024
"""Larger content goes to the blob store."""
TAIL_BYTES = 8 * 1024
MAX_DETAIL_BYTES = 120 * 1024
"""The coordinator takes 128 KiB."""
MAX_MESSAGE_LENGTH = 2000
MAX_SECONDS = 1e9
_VERDICTS = (
    common_pb2.VERDICT_PASSED,
    common_pb2.VERDICT_FAILED,
    common_pb2.VERDICT_ERROR,
    common_pb2.VERDICT_SKIPPED,
)

_log = logging.getLogger(__name__)


class Reporter:
    """The one way from executors to the outbound stream."""

    def __init__(
        self, book: LeaseBook, outbound: Outbound, uploads: Uploads, tasks: asyncio.TaskGroup
    ) -> None:
        self._book = book
        self._outbound = outbound
        self._uploads = uploads
        self._tasks = tasks
        self._ends: dict[int, worker_service_pb2.AttemptEnd] = {}

    def case(self, lease: Lease, item: ResultItem) -> bool:
        """A case ended; True: it was the attempt's last."""
        is_last = lease.take_case(item.case)
        make_sane(item)
        detail = item.detail
        if detail is None:
            self._say(lease, item, b"", is_last and not lease.uploading)
        elif len(detail.reports_json) > INLINE_BYTES or detail.output:
            lease.uploading += 1
            self._tasks.create_task(self._upload_and_say(lease, item, detail))
        else:
            self._say(lease, item, encoded(case_detail(detail)), is_last and not lease.uploading)
        return is_last

    def found(self, lease: Lease, item: ResultItem, detail: events_pb2.CaseDetail) -> None:
        """The only case of an attempt ended, with a detail that is complete."""
        lease.take_case(item.case)
        self._say(lease, item, encoded(detail), True)

    def error(self, lease: Lease, message: str, output: str = "") -> None:
        """No case of the attempt that is still to be reported can be judged; the first carries the output."""
        for n, index in enumerate(lease.indexes()):
            detail = Detail(message=message, output="" if n else output)
            verdict = common_pb2.VERDICT_ERROR
            self.case(lease, ResultItem(lease.fence, index, verdict, 0.0, 0.0, 0, 0.0, False, detail))

    def end(
        self,
        lease: Lease,
        outcome: "common_pb2.Outcome.ValueType",
        reason: str,
        *,
        running_case: int | None = None,
        output: str = "",
        exit_code: int = 0,
        duration_seconds: float = 0.0,
    ) -> None:
        """The attempt ended otherwise than by reporting every case."""
        end = worker_service_pb2.AttemptEnd(
            fence=lease.fence,
            outcome=outcome,
            running_case=0 if running_case is None else running_case + 1,
            reason=reason,
            duration_seconds=duration_seconds,
        )
        if output or exit_code:
            detail = events_pb2.CaseDetail(message=reason, exit_code=exit_code, output_tail=tail(output))
            end.detail = detail.SerializeToString()
        if lease.uploading:
            self._ends[lease.fence] = end
        else:
            self._say_end(lease, end)

    def release(self, leases: list[Lease]) -> None:
        """Leases that have not started are given back."""
        for lease in leases:
            self._book.forget(lease)
        self._outbound.add_released([lease.fence for lease in leases])

    def disown(self, fences: Sequence[int]) -> None:
        """Give back those that are neither held nor said to be over: a word of them was lost on its way."""
        said = self._outbound.unacknowledged_fences
        unknown = [fence for fence in fences if fence not in self._book and fence not in said]
        if unknown:
            _log.warning("giving back leases that this worker was never told of fences=%s", unknown)
            self._outbound.add_released(unknown)

    def _say(self, lease: Lease, item: ResultItem, detail: bytes, is_last: bool) -> None:
        if is_last:
            self._book.forget(lease)
        self._outbound.add_result(lease.key[0], item, detail, is_last=is_last)

    def _say_end(self, lease: Lease, end: worker_service_pb2.AttemptEnd) -> None:
        self._book.forget(lease)
        self._outbound.add_end(end)

    async def _upload_and_say(self, lease: Lease, item: ResultItem, detail: Detail) -> None:
        message = case_detail(detail)
        if detail.output:
            await self.upload_output(lease, detail.output.encode(errors="replace"))
        if len(detail.reports_json) > INLINE_BYTES:
            blob = await self._uploads.put_blob(detail.reports_json)
            if blob is not None:
                message.reports_blob.CopyFrom(blob)
        lease.uploading -= 1
        is_over = not lease.uploading and lease.fence in self._book
        is_last = is_over and lease.fence not in self._ends and (lease.cases is None or not lease.cases)
        self._say(lease, item, encoded(message), is_last)
        if is_over and lease.fence in self._ends:
            self._say_end(lease, self._ends.pop(lease.fence))

    async def upload_output(self, lease: Lease, data: bytes) -> None:
        """Append to the attempt's output; returns when it is stored, or refused."""
        offset = lease.output_bytes
        lease.output_bytes += len(data)
        await self._uploads.put_output(output_target(lease), offset, data)


def make_sane(item: ResultItem) -> None:
    """Replace numbers that no case can have: the process they come from runs code that is not ours."""
    if item.verdict not in _VERDICTS:
        item.verdict = common_pb2.VERDICT_ERROR
    # A comparison with NaN is false, so NaN is replaced too.
    if not 0 <= item.duration_seconds <= MAX_SECONDS:
        item.duration_seconds = 0.0
    if not 0 <= item.cpu_seconds <= MAX_SECONDS:
        item.cpu_seconds = 0.0
    item.peak_memory_bytes = min(max(0, item.peak_memory_bytes), 2**60)


def encoded(detail: events_pb2.CaseDetail) -> bytes:
    """The detail in bytes; of one that is too large, the long lists are cut and the message says so."""
    if detail.ByteSize() > MAX_DETAIL_BYTES:
        for column, name in ((detail.measurements, "measurements"), (detail.found, "cases")):
            whole = len(column)
            while column and detail.ByteSize() > MAX_DETAIL_BYTES:
                del column[len(column) // 2 :]
            if len(column) < whole:
                note = f"{len(column)} of {whole} {name} are kept"
                detail.message = "; ".join(filter(None, (detail.message, note)))
    return detail.SerializeToString()


def output_target(lease: Lease) -> worker_service_pb2.OutputTarget:
    """Where an attempt's output goes."""
    return worker_service_pb2.OutputTarget(
        run_id=lease.key[0], task=lease.task, attempt=lease.attempt, fence=lease.fence
    )


def case_detail(detail: Detail) -> events_pb2.CaseDetail:
    """What a warm process said of a case, as the log has it; reports that are too large are left out."""
    return events_pb2.CaseDetail(
        reports_json=detail.reports_json if len(detail.reports_json) <= INLINE_BYTES else b"",
        message=detail.message[:MAX_MESSAGE_LENGTH],
        measurements=[
            events_pb2.Measurement(
                metric=m.metric,
                value=m.value,
                unit=m.unit,
                is_lower_better=m.is_lower_better,
                case_name=m.case_name,
            )
            for m in detail.measurements
        ],
        exit_code=detail.exit_code,
        value_json=detail.value_json,
        output_tail=tail(detail.output),
    )


def tail(output: str) -> str:
    """The end of `output`, at most 8 KiB."""
    data = output.encode(errors="replace")
    return output if len(data) <= TAIL_BYTES else data[-TAIL_BYTES:].decode(errors="ignore")
