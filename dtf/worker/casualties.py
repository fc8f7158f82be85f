"""What becomes of the leases of a warm process that died.

The attempt that ran is charged: it ends as timed out, cancelled or crashed. Cancelled ones end as
cancelled. The others have done nothing wrong and wait again under their fences; what they reported
stays reported.
"""

from dtf.api.v1 import common_pb2
from dtf.worker.leases import Lease, LeaseBook
from dtf.worker.reporter import Reporter
from dtf.worker.warm_process import Death, WarmProcess


def sort_out(process: WarmProcess, death: Death, book: LeaseBook, reporter: Reporter) -> bool:
    """End or requeue every lease of a dead process; False: it died and no attempt can be charged."""
    leases = list(process.leases.values())
    process.leases.clear()
    process.outstanding = 0
    charged = charge(process, death, leases, reporter)
    innocent = []
    for lease in leases:
        if lease is charged:
            continue
        if lease.is_cancelled:
            reporter.end(lease, common_pb2.OUTCOME_CANCELLED, "cancelled while another attempt ran")
        else:
            innocent.append(lease)
    book.put_back(innocent)
    return charged is not None


def charge(process: WarmProcess, death: Death, leases: list[Lease], reporter: Reporter) -> Lease | None:
    """End the attempt whose case ran when the process died, if one did."""
    running = death.running
    lease = next((each for each in leases if running is not None and each.fence == running.fence), None)
    if lease is None or running is None or not lease.has_case(running.case):
        return None
    stop = process.stop_reason
    is_stopped = stop is not None and stop.fence == lease.fence
    reporter.end(
        lease,
        stop.outcome if stop is not None and is_stopped else common_pb2.OUTCOME_CRASHED,
        stop.words if stop is not None and is_stopped else death.reason,
        running_case=running.case,
        output=death.output,
        exit_code=death.exited.exit_code if death.exited is not None else 0,
        duration_seconds=max(0.0, death.seen_at - running.started_monotonic),
    )
    return lease
