"""What a value must meet beyond its type."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dtf.settings.fields import Value
from dtf.settings.model import Settings

_DAY_SECONDS = 86_400.0
POOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Workers are named after their pool."""


@dataclass(frozen=True, slots=True)
class Span:
    """A closed interval of numbers."""

    low: float
    high: float

    def fault(self, value: Value) -> str | None:
        """What is wrong with `value`, if anything."""
        if isinstance(value, (int, float)) and math.isfinite(value) and self.low <= value <= self.high:
            return None
        return f"{value!r} is outside {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """A closed set."""

    choices: tuple[Value, ...]

    def fault(self, value: Value) -> str | None:
        """What is wrong with `value`, if anything."""
        if value in self.choices:
            return None
        return f"{value!r} is none of {', '.join(map(str, self.choices))}"


RULES: Mapping[str, Span | OneOf] = {
    "nats.connect_timeout_seconds": Span(0.1, 600),
    "nats.append_timeout_seconds": Span(0.1, 600),
    "nats.max_log_bytes": Span(1 << 20, 1 << 50),
    "nats.replicas": OneOf((1, 3, 5)),
    "coordinator.tls": OneOf(("auto", "own", "off")),
    "coordinator.tls_trust": OneOf(("pinned", "system")),
    "coordinator.heartbeat_seconds": Span(0.05, 60),
    "coordinator.lease_seconds": Span(0.2, 3600),
    "coordinator.heartbeats_per_second": Span(1, 100_000),
    "coordinator.lease_heartbeats": Span(2, 100),
    "coordinator.leader_lease_seconds": Span(0.2, 60),
    "coordinator.standbys": Span(0, 4),
    "coordinator.max_credits": Span(1, 1 << 16),
    "coordinator.max_commit_bytes": Span(1024, 512 * 1024),
    "coordinator.max_commits_in_flight": Span(1, 256),
    "coordinator.max_client_streams": Span(1, 1_000_000),
    "gate.max_regression": Span(0, 100),
    "gate.window_days": Span(0.01, 3650),
    "gate.require_history": Span(0, 1),
    "notify.smtp_tls": OneOf(("starttls", "tls", "off")),
    "notify.linger_seconds": Span(0, 3600),
    "notify.messages_per_hour": Span(0.1, 3600),
    "notify.max_age_hours": Span(0.1, 1e6),
    "coordinator.kept_runs": Span(0, 100_000),
    "coordinator.kept_tasks": Span(0, 1 << 40),
    "coordinator.run_grace_seconds": Span(0, 30 * _DAY_SECONDS),
    "coordinator.kept_gone_workers": Span(0, 1_000_000),
    "coordinator.worker_grace_seconds": Span(1, 30 * _DAY_SECONDS),
    "coordinator.attempt_timeout_seconds": Span(0.01, 30 * _DAY_SECONDS),
    "coordinator.snapshot_events": Span(1, 1 << 40),
    "coordinator.snapshot_bytes": Span(1024, 1 << 50),
    "worker.slots": Span(1, 1024),
    "worker.credits": Span(1, 1 << 16),
    "worker.drain_timeout_seconds": Span(0, 30 * _DAY_SECONDS),
    "worker.spot_notices": OneOf(("", "aws", "gcp", "azure")),
    "worker.telemetry_seconds": Span(0.1, 3600),
    "pool.provider": OneOf(("process", "kubernetes", "ec2", "slurm", "ssh", "gcp", "azure")),
    "pool.cpus": Span(0, 4096),
    "pool.memory_bytes": Span(0, 1 << 50),
    "pool.gpus": Span(0, 1024),
    "pool.registration_seconds": Span(0, 30 * _DAY_SECONDS),
    "pool.quarantine_ratio": Span(0, 1),
    "pool.probation_seconds": Span(1, 30 * _DAY_SECONDS),
    "resource_manager.max_workers": Span(0, 100_000),
    "pool.min_workers": Span(0, 100_000),
    "pool.max_workers": Span(0, 100_000),
    "pool.slots": Span(1, 1024),
    "pool.price_per_hour": Span(0, 1e6),
    "pool.startup_seconds": Span(0.001, _DAY_SECONDS),
    "pool.strategy": OneOf(("target", "static", "stepwise", "adaptive", "predictive", "scheduled")),
    "pool.workers": Span(0, 100_000),
    "pool.warm_workers": Span(0, 100_000),
    "pool.tolerance_ratio": Span(0, 1),
    "pool.scale_out_window_seconds": Span(0, _DAY_SECONDS),
    "pool.scale_in_window_seconds": Span(0, _DAY_SECONDS),
    "pool.scale_out_limit": Span(0, 100_000),
    "pool.scale_out_limit_ratio": Span(0, 100),
    "pool.scale_in_limit": Span(0, 100_000),
    "pool.scale_in_limit_ratio": Span(0, 1),
    "pool.limit_seconds": Span(0.1, _DAY_SECONDS),
    "pool.backlog_aim_seconds": Span(0, _DAY_SECONDS),
    "pool.scale_in_idle_seconds": Span(0, _DAY_SECONDS),
    "pool.scale_out_cooldown_seconds": Span(0, _DAY_SECONDS),
    "pool.scale_in_cooldown_seconds": Span(0, _DAY_SECONDS),
    "kubernetes.kind": OneOf(("pod", "job")),
    "kubernetes.image_pull_policy": OneOf(("", "Always", "IfNotPresent", "Never")),
    "kubernetes.cpus": Span(0, 4096),
    "kubernetes.termination_grace_seconds": Span(1, _DAY_SECONDS),
    "kubernetes.image_patience_seconds": Span(0, _DAY_SECONDS),
    "kubernetes.scheduling_patience_seconds": Span(0, 7 * _DAY_SECONDS),
    "kubernetes.job_ttl_seconds": Span(60, 365 * _DAY_SECONDS),
    "slurm.cpus": Span(0, 4096),
    "slurm.time_limit_grace_seconds": Span(0, 65_535),
    "slurm.poll_seconds": Span(0.1, 600),
    "slurm.pending_patience_seconds": Span(1, 30 * _DAY_SECONDS),
    "ssh.connect_seconds": Span(1, 600),
    "ssh.poll_seconds": Span(0.1, 600),
    "ec2.poll_seconds": Span(0.01, 3600),
    "gcp.disk_gigabytes": Span(0, 65_536),
    "gcp.poll_seconds": Span(0.01, 3600),
    "blobs.max_bytes": Span(0, 1 << 60),
    "blobs.max_age_days": Span(0, 36_500),
    "azure.disk_gigabytes": Span(0, 32_767),
    "azure.spot_max_price": Span(0, 10_000),
    "azure.poll_seconds": Span(0.01, 3600),
    "analyzer.tls": OneOf(("auto", "own", "off")),
    "store.kind": OneOf(("duckdb", "influxdb")),
    "run.test_retries": Span(0, 100),
    "run.infrastructure_retries": Span(0, 100),
    "run.timeout_seconds": Span(0, 30 * _DAY_SECONDS),
    "run.workspace": OneOf(("auto", "pack", "shared", "image", "tree")),
    "worker.cache_bytes": Span(1 << 20, 1 << 50),
    "worker.cache_days": Span(0, 3650),
    "workspace.max_file_bytes": Span(1, 1 << 30),
    "workspace.max_bytes": Span(1, 1 << 34),
    "workspace.setup_timeout_seconds": Span(0.1, _DAY_SECONDS),
}

LEASE_HEARTBEATS = 3
"""Heartbeats that a lease must outlast: one lost message and one late one must not cost the work."""


def _lease_outlasts_heartbeats(settings: Settings) -> str | None:
    coordinator = settings.coordinator
    if coordinator.lease_seconds >= LEASE_HEARTBEATS * coordinator.heartbeat_seconds:
        return None
    return (
        f"coordinator.lease_seconds = {coordinator.lease_seconds:g} must be at least {LEASE_HEARTBEATS} times "
        f"coordinator.heartbeat_seconds = {coordinator.heartbeat_seconds:g}"
    )


def _pool_bounds_in_order(settings: Settings) -> str | None:
    for name in settings.pool_names:
        pool = settings.of_pool(name).pool
        if pool.max_workers == 0 or pool.max_workers >= pool.min_workers:
            continue
        table = "pool" if name == settings.pool.name else f"pools.{name}"
        return (
            f"{table}.max_workers = {pool.max_workers} must be at least {table}.min_workers = {pool.min_workers} "
            "(or 0: as many as the machine has processors)"
        )
    return None


def _pool_names_fit(settings: Settings) -> str | None:
    for name in settings.pools:
        if not POOL_NAME.fullmatch(name):
            return f"pools.{name}: a pool is named with 1 to 64 letters, digits, '-', '_' and '.', as its workers are"
        if name == settings.pool.name:
            return f"pools.{name} is the name of [pool] itself: set it there, or name one of them otherwise"
    return None


def _tls_files_together(settings: Settings) -> str | None:
    coordinator = settings.coordinator
    if bool(coordinator.tls_certificate_file) == bool(coordinator.tls_key_file):
        return None
    return "coordinator.tls_certificate_file and coordinator.tls_key_file must be given together"


def _no_files_without_tls(settings: Settings) -> str | None:
    for name, part in (("coordinator", settings.coordinator), ("analyzer", settings.analyzer)):
        if part.tls == "off" and part.tls_certificate_file:
            return f'{name}.tls = "off" and {name}.tls_certificate_file contradict each other; leave one out'
    return None


def _policies_can_be_read(settings: Settings) -> str | None:
    for name in settings.pool_names:
        pool = settings.of_pool(name).pool
        if not (pool.steps or pool.weights or pool.schedule):
            continue
        from dtf.core.scaling.adaptive import parse_weights  # lazily: few pools have any
        from dtf.core.scaling.schedule import parse_schedule, parse_zone
        from dtf.core.scaling.stepwise import parse_steps

        try:
            parse_steps(tuple(pool.steps.items()))
            parse_weights(pool.weights)
            parse_schedule(tuple(pool.schedule.items()))
            parse_zone(pool.timezone)
        except ValueError as fault:
            return f"pool {name}: {fault}"
    return None


_JOINT_RULES: tuple[Callable[[Settings], str | None], ...] = (
    _lease_outlasts_heartbeats,
    _pool_names_fit,
    _policies_can_be_read,
    _pool_bounds_in_order,
    _tls_files_together,
    _no_files_without_tls,
)


def joint_faults(settings: Settings) -> Iterator[str]:
    """What is wrong with settings taken together."""
    for rule in _JOINT_RULES:
        if (fault := rule(settings)) is not None:
            yield fault
