"""A running supervisor: starts its children in order, restarts what fails, stops in reverse order, or gives up.

The decisions are pure and live elsewhere (`strategy`, `intensity`, `backoff`); this is their shell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import trio

from actors.runtime.cell import Cell, State
from actors.runtime.errors import SupervisorGaveUp
from actors.runtime.events import ActorExited, ActorTakenDown, Exit, Next
from actors.runtime.intensity import Intensity
from actors.runtime.monitors import Monitors
from actors.runtime.restarts import Restart, Run
from actors.runtime.spec import Spec, Supervisor
from actors.runtime.strategy import affected, restarts

if TYPE_CHECKING:
    from actors.runtime.system import System


class SupervisorNode:
    """One supervisor of the tree. Its task, and with it all of its children, runs in a scope shielded from
    the outside: it stops when it is asked to, in order, and not by cancellation."""

    kind = "supervisor"

    def __init__(self, spec: Supervisor, parent: SupervisorNode | None, system: System, build: Build) -> None:
        """*build* makes the node of each child."""
        self.spec = spec
        self.id = spec.id
        self.parent = parent
        self.system = system
        self.children: list[Node] = [build(child, self, system) for child in spec.children]
        self.state: State = "waiting"
        self.state_since = trio.current_time()
        self.incarnation = 0
        self.restarts = 0
        self.consecutive_failures = 0
        self.backoff_until = -math.inf
        self.ready_at: float | None = None
        self.last_error: BaseException | None = None
        self.closed = False
        self.monitors = Monitors(spec.id)
        self._intensity = Intensity(spec.intensity, spec.period)
        self._restarts: list[Restart] = []
        self._run: Run | None = None

    # Asked by its own supervisor, or by the system for the root.

    async def start(self, nursery: trio.Nursery) -> Exit | None:
        """Start all children, in order; None when all are ready. Cancelled: it goes on, for `stop`."""
        self.incarnation += 1
        self.ready_at = None
        self.monitors.up()
        self._intensity.clear()
        self._set_state("starting")
        run = self._run = Run()
        nursery.start_soon(self._supervise, run)
        await run.started.wait()
        return run.exit

    async def stop(self, *, final: bool) -> None:
        """Stop the children in reverse order, each within its budget. Cancelled: the stop goes on."""
        run = self._run
        if run is not None and not run.exited.is_set():
            self._set_state("stopping")
            run.final = run.final or final
            run.scope.cancel()
            await run.exited.wait()
        if run is not None and run.exit is not None and self.parent is not None:
            event = ActorTakenDown if run.exit.kind == "stopped" else ActorExited
            self.report_exit(run.exit, *self.parent.stop_leads_to(self, final=final), event)
        if final:
            self.close()
        elif not self.closed:
            self.monitors.down(Exit("stopped"), "restart")
            self._set_state("waiting")

    def close(self) -> None:
        """End for good, with all that is below."""
        if not self.closed:
            self.closed = True
            self._set_state("stopped")
            for child in list(self.children):
                child.close()
            self.monitors.down((self._run and self._run.exit) or Exit("stopped"), "end")

    @property
    def startable(self) -> bool:
        return not self.closed

    def reopen(self) -> bool:
        return not self.closed

    def child_closed(self, child: Cell) -> None:
        """*child* has ended for good."""

    def enter_backoff(self, until: float) -> None:
        if not self.closed:
            self.backoff_until = max(self.backoff_until, until)
            self._set_state("backoff")
            for child in self.children:
                child.enter_backoff(until)

    def count_failure(self, now: float) -> float:
        ready_for = None if self.ready_at is None else now - self.ready_at
        self.consecutive_failures = self.spec.backoff.consecutive(self.consecutive_failures, ready_for, 0)
        return self.spec.backoff.delay(self.consecutive_failures, self.system.rng.random())

    def stop_leads_to(self, child: Node, *, final: bool) -> tuple[float, Next]:
        """The delay (seconds) and the next step after a stop of *child* that nobody has decided about."""
        if final:
            return 0.0, "end"
        if self._run is not None and self._run.failed:
            return 0.0, "escalate"
        for restart in self._restarts:
            if child in restart.nodes:
                return max(0.0, restart.due - trio.current_time()), "restart"
        return (0.0, "restart") if self.parent is None else self.parent.stop_leads_to(self, final=False)

    def report_exit(
        self,
        exit: Exit,
        delay: float,
        next: Next,
        event: type[ActorExited] | type[ActorTakenDown] = ActorExited,
    ) -> None:
        """Once an incarnation, whoever comes first."""
        if self._run is not None and not self._run.reported:
            self._run.reported = True
            self.system.report_exit(event(self.id, exit, self.restarts, delay, next))

    def child_exited(self, child: Node, exit: Exit) -> None:
        """A child ended by itself. Called from the child's task; the supervisor's own task decides.

        When the whole system is about to end there is nothing to decide.
        """
        if self._run is not None and self.system.failure is None:
            self._run.exits.send_nowait((child, child.incarnation, exit))

    # Its own task.

    async def _supervise(self, run: Run) -> None:
        ended: Exit | None = None
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                run.nursery = nursery
                with run.scope:  # a stop request cancels this, wherever it is
                    ended = await self._start_children(run)
                    if ended is None:
                        self.ready_at = trio.current_time()
                        self._set_state("ready")
                        run.started.set()
                        ended = await self._watch_children(run)
                run.failed = ended is not None
                await self._stop_children(run)
        exit = ended or Exit("stopped")
        self.last_error = exit.error or self.last_error
        run.exit = exit
        run.exited.set()
        if not run.started.is_set():
            run.started.set()
        elif exit.kind == "gave_up":
            if self.parent is None:
                self.report_exit(exit, 0.0, "end")
                self.system.fail(cast(BaseException, exit.error))
            else:
                self.parent.child_exited(self, exit)

    async def _start_children(self, run: Run) -> Exit | None:
        for child in self.children:
            if not child.reopen():
                continue  # a temporary one that ended in an earlier incarnation, or one that was asked to end
            failure = await child.start(run.nursery)
            if failure is not None:
                self._report(child, failure, 0.0, "escalate")
                return Exit("start_failed", self._gave_up(f"{child.id} failed to start", failure))
        return None

    async def _watch_children(self, run: Run) -> Exit:
        while True:
            child, incarnation, exit = await run.receive.receive()
            if child.closed or incarnation != child.incarnation:
                continue  # a group restart has replaced it since, or a stop has ended it
            gave_up = await self._child_down(run, child, exit)
            if gave_up is not None:
                return gave_up

    async def _child_down(self, run: Run, child: Node, exit: Exit) -> Exit | None:
        """Decide about a child that ended by itself; returns the supervisor's own exit when it gives up."""
        normal = exit.kind == "normal"
        if not restarts(child.spec.restart, normal=normal):
            self._report(child, exit, 0.0, "end")
            child.close()
            return None
        now = trio.current_time()
        under_way = next((restart for restart in self._restarts if child in restart.pending), None)
        if under_way is not None:  # it fell together with a sibling, and comes up with it: one failure, as in OTP
            self._report(child, exit, max(0.0, under_way.due - now), "restart")
            return None
        delay = child.count_failure(now)
        if not self._allows_restart(child, now):
            return self._too_often(child, exit)
        self._report(child, exit, delay, "restart")
        nodes = await self._take_down_with(child)
        restart = Restart(nodes, now + delay)
        child.enter_backoff(restart.due)
        self._restarts.append(restart)
        run.nursery.start_soon(self._restart, run, restart)
        return None

    def _allows_restart(self, _child: Node, now: float) -> bool:
        return self._intensity.record(now)

    def _too_often(self, child: Node, exit: Exit) -> Exit | None:
        """*child* is over the budget; returns the supervisor's own exit if it gives up for it."""
        self._report(child, exit, 0.0, "escalate")
        return Exit("gave_up", self._gave_up(f"{child.id} failed once too often", exit))

    async def _take_down_with(self, child: Node) -> list[Node]:
        """The children to restart with *child*. Restarts under way that overlap are cancelled: those they had
        not started yet come after *child* in the order, so they are among these."""
        positions = set(affected(self.spec.strategy, self.children.index(child), len(self.children)))
        for other in list(self._restarts):
            theirs = {self.children.index(node) for node in other.nodes}
            if theirs & positions:
                other.scope.cancel()
                await other.done.wait()
        return [self.children[position] for position in sorted(positions) if self.children[position].startable]

    async def _restart(self, run: Run, restart: Restart) -> None:
        failed: tuple[Node, Exit] | None = None
        with restart.scope:
            await self._stop_for_restart(restart)
            while restart.pending:
                node = restart.pending[0]
                await trio.sleep_until(node.backoff_until)
                restart.pending.popleft()
                if not node.reopen():
                    continue
                node.restarts += 1
                failure = await node.start(run.nursery)
                if failure is not None:
                    failed = node, failure
                    break
        self._restarts.remove(restart)
        restart.done.set()
        if failed is not None:
            self.child_exited(*failed)

    async def _stop_for_restart(self, restart: Restart) -> None:
        for node in reversed(restart.nodes):
            # A temporary child that goes down with its siblings does not come back.
            await node.stop(final=node.spec.restart == "temporary")
        for node in restart.nodes:
            node.enter_backoff(restart.due)

    async def _stop_children(self, run: Run) -> None:
        for restart in list(self._restarts):
            restart.scope.cancel()
            await restart.done.wait()
        for child in reversed(list(self.children)):
            await child.stop(final=run.final)

    def _gave_up(self, what: str, exit: Exit) -> SupervisorGaveUp:
        spec = self.spec
        limit = "" if exit.kind == "start_failed" else f" (more than {spec.intensity} failures in {spec.period} s)"
        cause = f": {type(exit.error).__name__}: {exit.error}" if exit.error is not None else ""
        error = SupervisorGaveUp(f"supervisor {self.id} gave up: {what}{limit}{cause}")
        error.__cause__ = exit.error
        return error

    def _report(self, child: Node, exit: Exit, delay: float, next: Next) -> None:
        child.report_exit(exit, delay, next)
        child.monitors.down(exit, next)

    def _set_state(self, state: State) -> None:
        self.state = state
        self.state_since = trio.current_time()

    def snapshot(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "state_age": trio.current_time() - self.state_since,
            "incarnation": self.incarnation,
            "restarts": self.restarts,
            "restart": self.spec.restart,
            "strategy": self.spec.strategy,
            "intensity": self.spec.intensity,
            "period": self.spec.period,
            "last_error": None if self.last_error is None else f"{type(self.last_error).__name__}: {self.last_error}",
            "children": [child.snapshot() for child in self.children],
        }


Node = Cell | SupervisorNode
Build = Callable[[Spec, SupervisorNode, "System"], Node]
