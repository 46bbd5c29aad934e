"""The life of a server process: start the tree, say so, obey signals, drain."""

import gc
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial

import structlog
import trio

from actors.rate_limiter import messages as limiter_messages
from actors.router import messages as router_messages
from actors.runtime import (
    ActorError,
    ActorExited,
    ActorReady,
    ActorTakenDown,
    Event,
    Supervisor,
    System,
    describe,
    open_system,
)
from composition import values
from composition.actor_metrics import expose
from composition.apps import targets
from composition.budgets import within
from composition.engines import opened_engines
from composition.listening import Listening
from composition.parts import Parts
from gateway.admin.readings import read
from gateway.asgi_target import TargetError
from gateway.front_end import Drain
from gateway.limits import LimitPlan
from gateway.logging import set_level
from gateway.process import STOP, until_stopped
from gateway.tls import TlsError
from gateway.workers.lifeline import Lifeline
from settings import ConfigError, Settings, describe_changes

log = structlog.get_logger("weir")

# For a client that sends as this worker is told to go there is another one to connect to, if it is told so.
_WORKERS_LINGER_S = 1.0


async def serve(
    declared: Supervisor,
    parts: Parts,
    sockets: Listening,
    reread: Callable[[], Settings],
    lifeline: Lifeline | None = None,
) -> None:
    """Run the tree until a signal stops it. A worker tells its parent by *lifeline*. Raises SupervisorGaveUp."""
    deadline = parts.settings.server.shutdown_deadline
    with trio.open_signal_receiver(*STOP, signal.SIGHUP, signal.SIGUSR2) as signals, closing(parts.origins):
        async with (
            opened_engines(parts.engine, parts.redis),
            open_system(
                within(declared, deadline), shutdown_deadline=deadline, observer=partial(_observe, parts), metrics=True
            ) as system,
        ):
            expose(parts.metrics, system)
            if parts.gateway:
                await _look_after_upstreams(parts, system)
            # Everything that lives as long as the process is there: no collection needs to look at it again.
            gc.collect()
            gc.freeze()
            parts.phase.started = True
            tls = parts.tls.current is not None
            if lifeline is not None:
                lifeline.ready()
            log.info("ready", gateway=sockets.gateway_urls(tls=tls), admin=sockets.admin_urls())
            await until_stopped(
                signals,
                reload=partial(_reload, parts, system, reread),
                roll=_roll,
                drain=partial(_drain, parts, system, _WORKERS_LINGER_S if sockets.worker else 0.0),
            )
    if lifeline is not None:
        lifeline.last(read(parts.metrics))


async def _roll() -> None:
    log.warning("there are no workers to replace: this server is one process, restart it")


async def _drain(parts: Parts, system: System, linger: float) -> None:
    """/readyz fails, load balancers look away, then the listeners close and what is in flight ends."""
    server = parts.settings.server
    parts.phase.draining = True
    end = trio.current_time() + server.shutdown_deadline
    if not parts.gateway:
        return  # what is in hand, the tree's stop brings to an end
    await trio.sleep(server.drain_delay)
    # Half of what is left is the tree's: its actors have work of their own to bring to an end.
    try:
        await system.ref("front_end").ask(Drain((end - trio.current_time()) / 2, linger))
    except ActorError as error:  # it crashed just now: there is nothing in flight any more, so the tree may stop
        log.warning("the front end could not drain", problem=str(error))


async def _reload(parts: Parts, system: System, reread: Callable[[], Settings]) -> None:
    """Take over what can change while running; a file that is wrong changes nothing."""
    try:
        new = reread()
        tls = values.tls(new)
        if parts.gateway:
            targets(parts, system.ref).check(values.routes(new))
    except (ConfigError, TargetError, TlsError) as error:
        log.error("not reloaded, the old settings stay", problem=str(error))
        return
    changes = describe_changes(parts.settings, new)
    if parts.gateway:
        try:
            await system.ref("rate_limiter").ask(limiter_messages.Reload(values.limits(new)), timeout=5.0)
            await system.ref("router").ask(router_messages.Reload(values.routes(new)), timeout=5.0)
        except ActorError as error:
            log.error("not reloaded: ask again when the tree is well", problem=str(error))
            return
    parts.policy.limits, parts.policy.cors = LimitPlan(values.limits(new)), values.cors(new)
    server = parts.settings.server
    if (tls is None) == (parts.tls.current is None):  # else it is among what needs a restart
        parts.tls.current = tls
        server = replace(server, tls_cert=new.server.tls_cert, tls_key=new.server.tls_key)
    set_level(new.log.level)
    parts.origins.checks = values.checks(new)
    parts.settings = replace(
        parts.settings, server=server, cors=new.cors, limits=new.limits, routes=new.routes, log=new.log
    )
    if parts.gateway:
        await _look_after_upstreams(parts, system)
    log.info("reloaded", changed=changes.reload, needs_restart=changes.restart)


async def _look_after_upstreams(parts: Parts, system: System) -> None:
    """An actor for each upstream that a route names, and for no other."""
    supervisor = system.dynamic("upstreams")
    wanted = {f"upstream:{url}": url for url in parts.origins.checks}
    try:
        for id in supervisor.children():
            if id not in wanted:
                await supervisor.stop_child(id)
        for id in wanted.keys() - supervisor.children():
            await supervisor.start_child(id, parts.origins.of(wanted[id]))
    except (ActorError, LookupError) as error:
        log.error("an upstream is not looked after; reload to try again", problem=str(error))


def _observe(parts: Parts, event: Event) -> None:
    if isinstance(event, ActorExited | ActorTakenDown) and event.next == "restart":
        parts.restarts.inc(event.actor)
    log_exit(event)


def log_exit(event: Event) -> None:
    """One line for each exit, with what comes next."""
    if isinstance(event, ActorReady | ActorTakenDown):
        log.debug(describe(event), actor=event.actor)
        return
    error = event.exit.error if isinstance(event, ActorExited) else getattr(event, "error", None)
    log.warning(describe(event), actor=event.actor, exc_info=error)
