"""Several processes: the parent's life, and what it starts its workers with."""

import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import structlog
import trio

from actors.metrics import Metrics
from actors.runtime import ActorError, ActorExited, ActorTakenDown, Event, Reject, Supervisor, System, open_system
from composition.audit_key import AuditKeyFile
from composition.budgets import within
from composition.listening import Listening
from composition.process import log_exit
from gateway.admin.access import AdminToken
from gateway.admin.app import RollError, create_app
from gateway.admin.control import Phase
from gateway.asgi import shield_send
from gateway.asgi_types import App
from gateway.front_end import FrontEnd
from gateway.logging import set_level
from gateway.process import STOP, until_stopped
from gateway.services.openapi import document
from gateway.services.routes import DOCUMENTED
from gateway.workers.actor import Leave, Reload, RollAll
from gateway.workers.control import ForwardedOperations, WorkersControl, worker_id
from gateway.workers.fleet import Fleet
from gateway.workers.lifeline import Beginning
from gateway.workers.process import WorkerEnded, WorkerProcess
from settings import ConfigError, Settings, describe_changes

log = structlog.get_logger("weir")


class Workforce:
    """What outlives the parent's actors. *content*: what the settings file says, for workers that start later: a file
    that is wrong by then must not keep a worker from coming back."""

    def __init__(
        self,
        settings: Settings,
        content: str,
        command: Sequence[str],
        public: Sequence[socket.socket],
        reread: Callable[[], tuple[Settings, str]],
    ) -> None:
        self.settings = settings
        self.content = content
        self.phase = Phase()
        self.metrics = Metrics()
        self.restarts = self.metrics.counter("weir_actor_restarts_total", "Restarts, by actor.", ("actor",))
        self.fleet = fleet = Fleet(settings.server.workers)
        self.metrics.gauge(
            "weir_workers", "Worker processes that are ready.", (), lambda: {(): float(len(fleet.current))}
        )
        self.ids = [worker_id(number) for number in range(1, settings.server.workers + 1)]
        self._command = command
        self._public = public
        self._reread = reread
        self._folder = settings.data.dir / "workers"
        self._made = 0
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for left in self._folder.glob("*.sock"):
            left.unlink()
        # Before any worker: several would make it at the same time.
        AuditKeyFile(settings.data.dir)()

    def launch(self, number: int) -> WorkerProcess:
        """While it is replaced a worker has two processes, each with a socket. Raises OSError, BindError."""
        if self.phase.draining:
            raise OSError("the server is stopping")
        self._made += 1
        beginning = Beginning(self.content, str(self.settings.data.dir), self.settings.server.roles)
        control = self._folder / f"{number}.{self._made}.sock"
        return WorkerProcess(number, self._command, self._public, control, beginning)

    def read_again(self) -> None:
        """What the file says now is what later workers run. Raises ConfigError, and the old settings stay."""
        new, self.content = self._reread()
        set_level(new.log.level)
        changes = describe_changes(self.settings, new)
        log.info("settings read again", changed=[*changes.reload, *changes.restart])

    async def roll(self, system: System) -> int:
        """Replace all workers, one after the other, by such as run what the file says now. Raises RollError."""
        try:
            self.read_again()
            rolled: int = await system.ref("roll").ask(RollAll())
        except ConfigError as error:
            raise RollError(f"the old settings and workers stay: {error}") from None
        except ActorError as error:
            raise RollError(str(error.error if isinstance(error, Reject) else error)) from None
        return rolled

    def app(self, bind: str, trusted: bool, listener: FrontEnd) -> App:
        """The operator's app over all workers."""
        settings = self.settings
        control = WorkersControl(
            listener.system,
            self.phase,
            self.fleet,
            self.metrics,
            openapi=partial(document, DOCUMENTED),
            roll=partial(self.roll, listener.system),
        )
        app = create_app(
            control, ForwardedOperations(self.fleet), AdminToken.load(settings.data.dir / "admin.token"),
            bind=bind, allow_kill=settings.admin.allow_kill, trusted=trusted,
        )  # fmt: skip
        return shield_send(cast(App, app), deadline=5.0)


def of_worker(settings: Settings, beginning: Beginning) -> Settings:
    """A worker's own share of the settings: the parent has the data directory, delays the drain, and ends later."""
    server = settings.server
    # What is left to it after the delay, less what the parent itself needs.
    deadline = 0.9 * (server.shutdown_deadline - server.drain_delay)
    return replace(
        settings,
        data=replace(settings.data, dir=Path(beginning.data)),
        server=replace(server, roles=beginning.roles, drain_delay=0.0, shutdown_deadline=deadline),
        admin=replace(settings.admin, allow_kill=True),  # the parent, who alone asks, decides
    )


async def serve_workers(declared: Supervisor, force: Workforce, sockets: Listening) -> None:
    """Run the parent's tree until a signal stops it. Raises SupervisorGaveUp."""
    deadline = force.settings.server.shutdown_deadline
    with trio.open_signal_receiver(*STOP, signal.SIGHUP, signal.SIGUSR2) as signals:
        async with open_system(
            within(declared, deadline), shutdown_deadline=deadline, observer=partial(_observe, force)
        ) as system:
            force.phase.started = True
            tls = force.settings.server.tls_cert is not None
            log.info(
                "ready",
                gateway=sockets.gateway_urls(tls=tls),
                admin=sockets.admin_urls(),
                workers=force.settings.server.workers,
            )
            await until_stopped(
                signals,
                reload=partial(_reload, force, system),
                drain=partial(_drain, force, system, sockets.public),
                roll=partial(_roll, force, system),
            )


def code_of(error: BaseException | None, force: Workforce) -> int:
    """The exit code of a parent that gave up: 2 where it did not even start for a mistake of the operator's that a
    worker found, and said."""
    while error is not None and not force.phase.started:
        if isinstance(error, WorkerEnded) and error.code == 2:
            return 2
        error = error.__cause__
    return 1


async def _drain(force: Workforce, system: System, public: Sequence[socket.socket]) -> None:
    server = force.settings.server
    force.phase.draining = True
    end = trio.current_time() + server.shutdown_deadline
    await trio.sleep(server.drain_delay)
    for sock in public:
        sock.close()  # else the kernel would go on taking connections that nobody accepts
    async with trio.open_nursery() as nursery:
        for id in force.ids:
            nursery.start_soon(_tell, system, id, Leave(0.95 * (end - trio.current_time())))


async def _reload(force: Workforce, system: System) -> None:
    """Every worker reads the file again, unless it is wrong."""
    try:
        force.read_again()
    except ConfigError as error:
        log.error("not reloaded, the old settings stay", problem=str(error))
        return
    async with trio.open_nursery() as nursery:
        for id in force.ids:
            nursery.start_soon(_tell, system, id, Reload())


async def _roll(force: Workforce, system: System) -> None:
    try:
        log.info("rolled", workers=await force.roll(system))
    except RollError as error:
        log.error("not all workers were replaced", problem=str(error))


async def _tell(system: System, id: str, message: Leave | Reload) -> None:
    try:
        await system.ref(id).ask(message)
    except ActorError as error:  # it has no process at this moment: none to tell
        log.warning("a worker was not told", worker=id, problem=str(error))


def _observe(force: Workforce, event: Event) -> None:
    if isinstance(event, ActorExited | ActorTakenDown) and event.next == "restart":
        force.restarts.inc(event.actor)
    log_exit(event)


def worker_command(supervisor: Path, config: Path) -> Sequence[str]:
    return [sys.executable, str(supervisor), "worker", "--config", str(config.absolute())]
