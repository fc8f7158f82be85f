"""The settings, each default once. Frozen; passed whole; never global.

`dtf.toml` (or `[tool.dtf]` of pyproject.toml) has one table a class, named as the field of
`Settings`; the environment variable of `nats.url` is DTF_NATS_URL, and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dtf.core.scaling.choices import ScalingChoices, Strategy
from dtf.settings.blobs import BlobSettings
from dtf.settings.providers import (
    AzureSettings,
    Ec2Settings,
    GcpSettings,
    KubernetesSettings,
    SlurmSettings,
    SshSettings,
)
from dtf.settings.trends import GateSettings, NotifySettings, TrendsSettings
from dtf.settings.workspaces import WorkspaceSettings


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """The broker of the event log."""

    url: str = ""
    """nats://host:port[,…]; empty: the embedded stack starts its own nats-server."""
    credentials_file: str = ""
    """File with "user:password" (or a NATS .creds file), readable by its owner alone."""
    websocket: bool = False
    """Whether the embedded nats-server takes NATS over WebSocket too, on loopback, for taps in JavaScript."""
    connect_timeout_seconds: float = 10.0
    append_timeout_seconds: float = 5.0
    """An append not acknowledged by then is read back."""
    max_log_bytes: int = 8 * 2**30
    """max_bytes of the log's stream; past it submissions are refused."""
    archive_dir: str = ""
    """Directory of `dtf log archive`, one directory a namespace in it; empty: archive/ under the state directory."""
    replicas: int = 1
    """Copies of each stream in a NATS cluster: 1, 3 or 5."""


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """The process that decides."""

    namespace: str = "default"
    listen: str = "127.0.0.1:0"
    """Address of the gRPC server; port 0: any free one. Beyond loopback needs TLS and a token."""
    token_file: str = ""
    """File with the bearer token that every call must carry."""
    advertise: str = ""
    """host:port[,host:port…] under which workers of other machines reach the coordinator(s), for join tokens;
    empty: the address it listens on; of 0.0.0.0 and [::], that of this machine in its network."""
    tls: str = "auto"
    """auto: TLS beyond loopback; own: TLS everywhere; off: none, which only loopback allows. The certificate is
    that of tls_certificate_file, or else of an authority that dtf makes in .dtf/secrets/tls (docs/joining.md)."""
    tls_certificate_file: str = ""
    """PEM file with the server's certificate, and those above it as far as they are to be sent."""
    tls_key_file: str = ""
    tls_trust: str = "pinned"
    """What join tokens say of tls_certificate_file: pinned: the last certificate in it; system: machines trust
    its authority anyway."""
    heartbeat_seconds: float = 1.0
    lease_seconds: float = 10.0
    """Silence after which a worker is lost: ten heartbeats, so that a paused machine keeps its work."""
    heartbeats_per_second: float = 250.0
    """Most heartbeats of the whole fleet: at some 250 µs each, telemetry included, a sixteenth of a core.
    Larger fleets are told longer intervals (docs/scale.md)."""
    lease_heartbeats: float = 4.0
    """Stretched heartbeats that may be missed before an attached worker is lost."""
    leader_lease_seconds: float = 1.5
    """Silence of a leader after which a standby takes its place: five renewals, so that a takeover is over in 3 s."""
    standbys: int = 0
    """Standby coordinators that the embedded stack runs beside the one that leads."""
    max_credits: int = 1024
    """Most leases one worker may hold; windows of 64 and more keep batches large (design/measured.md)."""
    max_commit_bytes: int = 64 * 1024
    """A commit closes when it has grown to this; larger ones gain nothing (design/measured.md)."""
    max_commits_in_flight: int = 16
    max_client_streams: int = 2048
    """Most watches, submissions, tails of output and uploads that are open at once, all clients together; one
    beyond them is refused. A client needs one or two."""
    kept_runs: int = 100
    """Ended runs whose tasks stay in memory; of others the outline stays, and the log has the rest."""
    kept_tasks: int = 250_000
    """Tasks of ended runs in memory: about 35 MB."""
    run_grace_seconds: float = 60.0
    """A run stays in memory as long after its end, so that whoever repeats a call about it is answered at once."""
    kept_gone_workers: int = 1000
    """Workers that left or were lost and are still listed."""
    worker_grace_seconds: float = 3600.0
    """A worker is listed as long after it went."""
    attempt_timeout_seconds: float = 3600.0
    """Longest time an attempt or a pytest case may run when its template says nothing."""
    blob_dir: str = ""
    """Directory of the blob store; empty: blobs/ under the state directory."""
    state_dir: str = ".dtf"
    snapshot_events: int = 200_000
    """A snapshot is taken when the log has grown by so many events: about a second of a start."""
    snapshot_bytes: int = 128 * 2**20
    """Or by so many bytes: an event may carry hundreds of tasks."""
    metrics_listen: str = ""
    """As of the resource manager."""
    metrics_token_file: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """A process that runs attempts."""

    server: str = ""
    """host:port[,host:port…] of the coordinator(s)."""
    token_file: str = ""
    certificate_authority_file: str = ""
    """PEM file of the authority that signed the coordinator's certificate; given, the connection is TLS."""
    join_file: str = ""
    """File with a join token, which says all of the above and the pool."""
    name: str = ""
    """Stable identity; empty: the coordinator gives one."""
    pool: str = "local"
    slots: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    credits: int = 64
    """Leases held in advance of running, so that batches stay large."""
    drain_timeout_seconds: float = 600.0
    """On SIGTERM, how long running attempts may go on before they are stopped."""
    launch_id: str = ""
    spot_notices: str = ""
    """aws, gcp or azure: ask the metadata of this machine whether it is to be taken away, and drain then."""
    telemetry_seconds: float = 5.0
    cache_dir: str = ""
    """Directory of unpacked workspaces; empty: dtf/workspaces in the user's cache directory."""
    cache_bytes: int = 20 * 2**30
    """Most bytes of workspaces, set-up included; those unused for longest go first, those in use stay."""
    cache_days: float = 14.0
    """A workspace unused for this long goes."""


@dataclass(frozen=True, slots=True)
class PoolSettings(ScalingChoices):
    """Bounds and pace of one pool; what its policy may choose is in ScalingChoices."""

    name: str = "local"
    provider: str = "process"
    min_workers: int = 1
    max_workers: int = 0
    """Workers that take work or are on their way, at most; 0: the number of processors of the machine, at least 2."""
    slots: int = 1
    cpus: float = 0.0
    """Processors of each worker, all its slots together; 0: what the provider gives."""
    memory_bytes: int = 0
    """Memory of each worker; 0: what the provider gives."""
    gpus: int = 0
    registration_seconds: float = 0.0
    """A launch that has not registered by then is ended; 0: 120 s for processes and hosts, 900 s where machines
    have to be found first."""
    quarantine_ratio: float = 0.2
    """Share of the pool that may be in quarantine at once; 0: workers are never quarantined."""
    probation_seconds: float = 300.0
    """A quarantined worker works again after so long; falling ill again within as long a time, it is ended."""
    strategy: str = Strategy.TARGET.value
    """target, static, stepwise, adaptive, predictive or scheduled; see docs/scaling.md."""


@dataclass(frozen=True, slots=True)
class ResourceManagerSettings:
    """The process that looks after the pools."""

    max_workers: int = 0
    """Workers of all pools together at most, those that are draining or ending included, so that a quota holds;
    0: what the pools allow each for itself."""
    metrics_listen: str = ""
    """host:port of an HTTP server with /metrics for Prometheus; empty: none. No host: loopback."""
    metrics_token_file: str = ""
    """File with the bearer token that who reads /metrics shows, one for nothing else: beyond loopback it is wanted,
    and goes there in plain text."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The metric store."""

    kind: str = "duckdb"
    """duckdb or influxdb; influxdb takes url, token, org and bucket from INFLUXDB_V2_*."""
    path: str = ""
    """File of the DuckDB store; empty: metrics.duckdb under the state directory."""


@dataclass(frozen=True, slots=True)
class AnalyzerSettings:
    """The trend analyzer."""

    listen: str = "127.0.0.1:0"
    server: str = ""
    """Address under which others reach it; written by the embedded stack."""
    token_file: str = ""
    """File with the bearer token that every call must carry; empty: the coordinator's."""
    tls: str = "auto"
    """auto: TLS beyond loopback; own: TLS everywhere; off: none, which only loopback allows."""
    tls_certificate_file: str = ""
    """Beyond loopback the analyzer needs TLS of its own: it may run on another machine."""
    tls_key_file: str = ""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run asks for unless told otherwise."""

    suite: str = ""
    """Empty: the name of the project's directory."""
    test_retries: int = 0
    infrastructure_retries: int = 1
    """A case that kills two workers gets the verdict error."""
    timeout_seconds: float = 0.0
    server: str = ""
    """host:port[,host:port…] of the coordinator(s) to use (DTF_SERVER); empty: those of the namespace in
    `servers`, else the embedded stack."""
    servers: dict[str, str] = field(default_factory=dict)
    """Coordinators by namespace, where several share the work (docs/scale.md): a = "host:7070"."""
    token_file: str = ""
    certificate_authority_file: str = ""
    """PEM file of the authority that signed the certificates of coordinator and analyzer; given, the connection is TLS."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels of each run, for the record: a branch, a CI job."""
    workspace: str = "auto"
    """How workers get the code: pack: the working tree travels; shared: they see it; image: their image has it;
    tree: they use it in place; auto: pack where they are not the embedded stack's own processes, else tree."""
    setup: str = ""
    """Shell command that readies an unpacked tree, once a content and machine: "pip install -e .". It runs in it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it."""

    nats: NatsSettings = field(default_factory=NatsSettings)
    coordinator: CoordinatorSettings = field(default_factory=CoordinatorSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    """The first pool, and what every other has where its own table says nothing."""
    resource_manager: ResourceManagerSettings = field(default_factory=ResourceManagerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    analyzer: AnalyzerSettings = field(default_factory=AnalyzerSettings)
    run: RunSettings = field(default_factory=RunSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    ssh: SshSettings = field(default_factory=SshSettings)
    ec2: Ec2Settings = field(default_factory=Ec2Settings)
    gcp: GcpSettings = field(default_factory=GcpSettings)
    azure: AzureSettings = field(default_factory=AzureSettings)
    workspace: WorkspaceSettings = field(default_factory=WorkspaceSettings)
    trends: TrendsSettings = field(default_factory=TrendsSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    blobs: BlobSettings = field(default_factory=BlobSettings)

    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    """More pools, [pools.NAME]: settings that differ from [pool]'s, and tables of providers, [pools.NAME.kubernetes],
    that differ from the providers' own."""

    @property
    def server(self) -> str:
        """The coordinator to use: the one named, else that of the namespace; empty: the embedded stack's."""
        return self.run.server or self.run.servers.get(self.coordinator.namespace, "")

    @property
    def pool_names(self) -> Sequence[str]:
        """Every pool there is, the first first."""
        return [self.pool.name, *self.pools]

    def of_pool(self, name: str) -> "Settings":
        """The settings whose pool and providers' tables are those of the pool `name`. Raises KeyError."""
        if name == self.pool.name:
            return self
        own = self.pools[name]
        known = {item.name for item in fields(PoolSettings)}
        pool = replace(self.pool, name=name, **{key: own[key] for key in own if key in known})
        providers = {
            table: replace(getattr(self, table), **values)
            for table, values in own.items()
            if table not in known
        }
        return replace(self, pool=pool, **providers)
