"""`decide` turns a command into events, or refuses it. Every rule is below here; it changes nothing.

Where the rules live:

    runs created, fed, sealed, cancelled     submission.py     what a request may hold   limits.py
    which worker can run what, waiting       placement.py      who gets which tasks      grants.py
    whose turn it is                         turns.py          what a worker may hold    window.py
    results, fences, repetitions             results.py        retries, FLAKY            acceptance.py
    crashes, time-outs, losses, charges      endings.py        when a run has ended      outlook.py
    workers                                  dtf/core/fleet/decisions.py
    join tokens, and whom they admit         dtf/core/fleet/tokens.py
    what is wished of pools                  dtf/core/fleet/pools.py
"""

from typing import assert_never

from dtf.api.v1 import events_pb2
from dtf.core.fleet import decisions as fleet
from dtf.core.fleet import pools, tokens
from dtf.core.run import commands
from dtf.core.run.commands import Command
from dtf.core.run.grants import grant_leases
from dtf.core.run.limits import MAX_LABEL_LENGTH
from dtf.core.run.placement import next_deadline, review_placement
from dtf.core.run.results import report_results
from dtf.core.run.retirement import forget_workers, retire_runs
from dtf.core.run.state import State
from dtf.core.run.submission import cancel_run, create_run, submit_tasks

__all__ = ["decide", "next_deadline"]


def decide(state: State, command: Command, now_ns: int = 0) -> list[events_pb2.Event]:
    """The events that `command`, given at `now_ns`, leads to; possibly none. Raises Rejection."""
    match command:
        case commands.GrantLeases():
            return grant_leases(state, command)
        case commands.ReportResults():
            return report_results(state, command)
        case commands.SubmitTasks():
            return submit_tasks(state, command)
        case commands.CreateRun():
            return create_run(state, command)
        case commands.CancelRun():
            return cancel_run(state, command)
        case commands.ReviewPlacement():
            return review_placement(state, command, now_ns)
        case commands.RetireRuns():
            return retire_runs(state, command, now_ns)
        case commands.ElectLeader():
            return _elect_leader(state, command)
        case _:
            return _decide_fleet(state, command, now_ns)


FleetCommand = (
    commands.RegisterWorker
    | commands.IssueToken
    | commands.RevokeToken
    | commands.ReconcileLeases
    | commands.DrainWorker
    | commands.QuarantineWorker
    | commands.ReleaseWorker
    | commands.CloseSession
    | commands.ExpireWorkers
    | commands.ForgetWorkers
    | commands.ScalePool
    | commands.PausePool
    | commands.ResumePool
)


def _decide_fleet(state: State, command: FleetCommand, now_ns: int) -> list[events_pb2.Event]:
    match command:
        case commands.RegisterWorker():
            return fleet.register_worker(state, command, now_ns)
        case commands.IssueToken():
            return tokens.issue_token(state, command, now_ns)
        case commands.RevokeToken():
            return tokens.revoke_token(state, command)
        case commands.ReconcileLeases():
            return fleet.reconcile_leases(state, command)
        case commands.DrainWorker():
            return fleet.drain_worker(state, command)
        case commands.QuarantineWorker():
            return fleet.quarantine_worker(state, command)
        case commands.ReleaseWorker():
            return fleet.release_worker(state, command)
        case commands.CloseSession():
            return fleet.close_session(state, command)
        case commands.ExpireWorkers():
            return fleet.expire_workers(state, command)
        case commands.ForgetWorkers():
            return forget_workers(state, command, now_ns)
        case commands.ScalePool():
            return pools.scale_pool(state, command)
        case commands.PausePool():
            return pools.pause_pool(state, command)
        case commands.ResumePool():
            return pools.resume_pool(state, command)
        case _:
            assert_never(command)


def _elect_leader(state: State, command: commands.ElectLeader) -> list[events_pb2.Event]:
    loss = command.accepted_loss
    elected = events_pb2.LeaderElected(
        epoch=max(state.epoch, loss.lost_epoch if loss is not None else 0) + 1,
        leader=command.leader[:MAX_LABEL_LENGTH],
        lease_seconds=command.lease_seconds,
        accepted_loss=loss,
    )
    return [events_pb2.Event(leader_elected=elected)]
