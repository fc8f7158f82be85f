"""What the parts of an embedded stack are told: settings, files, addresses; and which parts there are."""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.cli.certificate_choice import certificates_dir, uses_own_authority
from dtf.cli.reserved_port import ReservedPort
from dtf.cli.stack_parts import DTF_PROGRAM, CommandPart, NatsPart, Part
from dtf.client.stack import StackAddresses
from dtf.rpc.addresses import local_address, reachable_address
from dtf.settings.loader import dump_settings
from dtf.settings.model import AnalyzerSettings, CoordinatorSettings, Settings
from dtf.settings.project import make_private_dir, namespace_dir, state_dir, write_private


class StackPlan:
    """Settings, files and addresses of one stack, as far as they are known."""

    def __init__(self, project_dir: Path, settings: Settings) -> None:
        self.project_dir = project_dir
        self.state = state_dir(project_dir)
        self.secrets = make_private_dir(self.state / "secrets")
        self.logs = make_private_dir(self.state / "logs")
        self.settings_file = self.state / "settings.json"
        token_file = self.secrets / "token"
        if not token_file.exists():
            write_private(token_file, secrets.token_urlsafe(32) + "\n")
        self.owns_broker = not settings.nats.url
        # Chosen now, so that every part can be told at once and a restarted one is found again.
        self._coordinator_ports = [ReservedPort(listen) for listen in _listens(settings.coordinator)]
        self._analyzer_port = ReservedPort(settings.analyzer.listen)
        self._broker_port = ReservedPort("127.0.0.1:0") if self.owns_broker else None
        self._websocket_url = ""
        self._tap_credentials_file = ""
        self.settings = self._with_addresses(self._with_files(settings, str(token_file)))

    def _with_files(self, settings: Settings, token_file: str) -> Settings:
        nats, coordinator = settings.nats, settings.coordinator
        authority, analyzer = self._secured(settings)
        if self.owns_broker:
            nats = replace(nats, credentials_file=str(self.secrets / "nats"))
        home = namespace_dir(self.state, coordinator.namespace)
        return replace(
            settings,
            nats=nats,
            analyzer=analyzer,
            coordinator=replace(
                coordinator,
                token_file=token_file,
                state_dir=str(self.state),
                blob_dir=coordinator.blob_dir or str(home / "blobs"),
            ),
            worker=replace(
                settings.worker,
                token_file=token_file,
                certificate_authority_file=authority,
                pool=settings.pool.name,
            ),
            store=replace(settings.store, path=settings.store.path or str(home / "metrics.duckdb")),
            run=replace(settings.run, token_file=token_file, certificate_authority_file=authority),
        )

    def _secured(self, settings: Settings) -> tuple[str, AnalyzerSettings]:
        """The authority by which the parts know each other, "" without TLS; the analyzer secured as the coordinator is.

        Whatever is set for other servers does not concern them.
        """
        coordinator, analyzer = settings.coordinator, settings.analyzer
        if uses_own_authority(coordinator):
            from dtf.adapters.certificates import OwnAuthority

            own = OwnAuthority(certificates_dir(self.state), SystemClock())
            own.load()
            return str(own.certificate_file), replace(analyzer, tls="own")
        authority = settings.run.certificate_authority_file if coordinator.tls_certificate_file else ""
        if not analyzer.tls_certificate_file:
            analyzer = replace(
                analyzer,
                tls_certificate_file=coordinator.tls_certificate_file,
                tls_key_file=coordinator.tls_key_file,
            )
        return authority, analyzer

    def _with_addresses(self, settings: Settings) -> Settings:
        server = ",".join(map(local_address, self.coordinators))
        analysis = self._analyzer_port.address
        return replace(
            settings,
            coordinator=replace(
                settings.coordinator,
                listen=self.coordinators[0],
                advertise=settings.coordinator.advertise
                or ",".join(map(reachable_address, self.coordinators)),
            ),
            worker=replace(settings.worker, server=server),
            run=replace(settings.run, server=server),
            analyzer=replace(settings.analyzer, listen=analysis, server=local_address(analysis)),
        )

    @property
    def coordinators(self) -> list[str]:
        """Address of each coordinator: of the one that leads first, and of those that stand by for it."""
        return [port.address for port in self._coordinator_ports]

    @property
    def broker_port(self) -> int:
        """The port of the stack's own broker; 0 where the broker is another's."""
        return int(self._broker_port.address.rpartition(":")[2]) if self._broker_port is not None else 0

    def broker_ready(self, server: NatsServer) -> None:
        """The broker listens."""
        self.settings = replace(self.settings, nats=replace(self.settings.nats, url=server.url))
        self._websocket_url = server.websocket_url
        self._tap_credentials_file = str(server.tap_credentials_file)

    def release_ports(self) -> None:
        """Let go of the ports that were chosen for the parts."""
        for port in (*self._coordinator_ports, self._analyzer_port, self._broker_port):
            if port is not None:
                port.release()

    def arguments(self, command: str) -> list[str]:
        """Command line of a part, with the settings as they are now in its file."""
        write_private(self.settings_file, dump_settings(self.settings))
        return ["--project", str(self.project_dir), "--settings", str(self.settings_file), command]

    def addresses(self) -> StackAddresses:
        """Where the parts are."""
        settings = self.settings
        return StackAddresses(
            server=settings.run.server,
            analysis=settings.analyzer.server,
            nats=settings.nats.url,
            token_file=settings.run.token_file,
            certificate_authority_file=settings.run.certificate_authority_file,
            nats_credentials_file=settings.nats.credentials_file,
            nats_websocket=self._websocket_url,
            nats_tap_credentials_file=self._tap_credentials_file,
            namespace=settings.coordinator.namespace,
            supervisor_pid=os.getpid(),
            pool_min=settings.pool.min_workers,
            pool_max=settings.pool.max_workers,
        )


CommandLine = Callable[[], Sequence[str]]


def _listens(settings: CoordinatorSettings) -> list[str]:
    """Where coordinators listen: the first as it is set, the standbys on free ports beside it."""
    host = settings.listen.rpartition(":")[0]
    return [settings.listen, *[f"{host}:0"] * settings.standbys]


def make_stages(
    plan: StackPlan, inherited: Sequence[int], program: Sequence[str] = DTF_PROGRAM
) -> list[list[Part]]:
    """The parts of the stack, in stages that start one after the other.

    `inherited` are descriptors that every part holds: the lifeline, and the lock that says the
    stack lives.
    """

    def command(name: str, line: CommandLine | None = None) -> Part:
        return CommandPart(
            name,
            line or (lambda: [*program, *plan.arguments(name)]),
            log_file=plan.logs / f"{name}.log",
            working_dir=plan.project_dir,
            inherited=inherited,
        )

    broker: list[Part] = []
    if plan.owns_broker:
        server = NatsServer(
            plan.state / "nats",
            Path(plan.settings.nats.credentials_file),
            log_file=plan.logs / "nats-server.log",
            port=plan.broker_port,
            has_websocket=plan.settings.nats.websocket,
        )
        broker.append(NatsPart(server, plan.broker_ready))
    coordinators: list[Part] = [command("coordinator")]
    if len(plan.coordinators) > 1:
        coordinators = _standing_by_for_each_other(plan, command, program)
    others = [*coordinators, command("trend-analyzer"), command("resource-manager")]
    return [stage for stage in (broker, others) if stage]


def _standing_by_for_each_other(
    plan: StackPlan, command: Callable[[str, CommandLine], Part], program: Sequence[str]
) -> list[Part]:
    """The coordinators of a stack with standbys.

    The first start of the first one leads at once; whichever is started again stands by, because
    another one leads by then, or will soon.
    """
    first_starts = iter((True,))

    def line(address: str, may_lead: bool) -> CommandLine:
        def arguments() -> Sequence[str]:
            leads = may_lead and next(first_starts, False)
            options = ["--listen", address] if leads else ["--listen", address, "--standby"]
            return [*program, *plan.arguments("coordinator"), *options]

        return arguments

    return [
        command(f"coordinator-{index}" if index > 1 else "coordinator", line(address, index == 1))
        for index, address in enumerate(plan.coordinators, start=1)
    ]
