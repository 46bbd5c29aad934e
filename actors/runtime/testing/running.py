"""A system under test: opened on a schedule of its own, watched, and closed in order."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import trio

from actors.runtime import (
    Actor,
    ActorError,
    ActorExited,
    ActorReady,
    Child,
    DeadLetter,
    DynamicSupervisor,
    Event,
    Pool,
    Ref,
    Supervisor,
    System,
    describe,
    open_system,
)
from actors.runtime.testing.clock import happens, require_virtual_time
from actors.runtime.testing.faults import InjectedFault
from actors.runtime.testing.probe import Probe
from actors.runtime.testing.schedules import seed_schedule

Node = Child | Supervisor | Pool | DynamicSupervisor
PATIENCE = 60.0
"""Virtual seconds that a wait lasts unless told otherwise; in a test that does not fail they cost nothing."""


class RunningSystem:
    """What a test sees of its system, during its life and after.

    Attributes:
        system: the runtime's own `System`.
        events: what the runtime reported, in order.
        starts: ids in the order in which they became ready, restarts included.
        stops: ids in the order in which their `on_stop` began, restarts included.
        dead_letters: in order, from when all children were ready.
        timeline: lines of (virtual time, what happened); shown when the test fails.
    """

    system: System

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.starts: list[str] = []
        self.stops: list[str] = []
        self.dead_letters: list[DeadLetter] = []
        self.timeline: list[tuple[float, str]] = []
        self._actors: dict[str, Actor[Any]] = {}
        self._changed = trio.lowlevel.ParkingLot()

    def ref(self, id: str) -> Ref[Any]:
        return self.system.ref(id)

    def state(self, id: str) -> dict[str, Any]:
        """The snapshot of one node, actor or supervisor. Raises LookupError for an unknown id."""
        nodes = [self.system.snapshot()]
        while nodes:
            node = nodes.pop()
            if node["id"] == id:
                return node
            nodes.extend(node.get("children", ()))
        raise LookupError(f"there is no {id!r} in the tree")

    def exits(self, id: str) -> list[ActorExited]:
        """The exits of an actor or supervisor by itself, oldest first; an ordered stop is none."""
        return [event for event in self.events if isinstance(event, ActorExited) and event.actor == id]

    async def crash(self, id: str, error: Callable[[], BaseException] = InjectedFault) -> ActorExited:
        """Crash an actor now, with what it has in hand; returns the exit when its supervisor has decided.

        As a task of its own would crash it. Raises AssertionError when it is not ready.
        """
        state = self.state(id)["state"]
        if id not in self._actors or state != "ready":
            raise AssertionError(f"{id} cannot be crashed, for it is not a ready actor: {state}")
        before = len(self.exits(id))
        self._actors[id].spawn(_raise, error())
        return await self.wait_for_exit(id, before + 1)

    async def wait_until_ready(self, id: str, *, incarnation: int = 1, within: float = PATIENCE) -> None:
        """Wait for an actor to be ready, in that incarnation or a later one. AssertionError: not in time."""
        self.ref(id)

        def ready() -> bool:
            state = self.state(id)
            return bool(state["state"] == "ready" and state["incarnation"] >= incarnation)

        if not await happens(ready, self._changed, within):
            state = self.state(id)
            raise AssertionError(
                f"{id} was not ready in incarnation {incarnation} within {within} s: it is in state "
                f"{state['state']}, incarnation {state['incarnation']}, last error {state['last_error']}"
            )

    async def wait_for_exit(self, id: str, number: int = 1, *, within: float = PATIENCE) -> ActorExited:
        """Wait for the *number*-th exit of that actor or supervisor. AssertionError: not in time."""
        self.state(id)
        if not await happens(lambda: len(self.exits(id)) >= number, self._changed, within):
            raise AssertionError(f"{id} had {len(self.exits(id))} exits within {within} s, not {number}")
        return self.exits(id)[number - 1]

    async def ask_all(self, id: str, *messages: Any) -> list[Any]:
        """Ask all at once, each from a task of its own: the answers, or the ActorErrors, in order of *messages*."""
        results: list[Any] = [None] * len(messages)

        async def ask(position: int, message: Any) -> None:
            try:
                results[position] = await self.ref(id).ask(message)
            except ActorError as error:
                results[position] = error

        async with trio.open_nursery() as nursery:
            for position, message in enumerate(messages):
                nursery.start_soon(ask, position, message)
        return results

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        self._note(describe(event))
        if isinstance(event, ActorReady):
            self.starts.append(event.actor)
        self._changed.unpark_all()

    def _letter(self, letter: DeadLetter) -> None:
        self.dead_letters.append(letter)
        self._note(f"{letter.actor}: dead letter ({letter.reason}) {letter.message!r}")

    def _note(self, what: str) -> None:
        self.timeline.append((trio.current_time(), what))

    def _watched(self, node: Node) -> Node:
        """The same node, its actors known to this system."""
        if isinstance(node, Supervisor):
            return dataclasses.replace(node, children=[self._watched(child) for child in node.children])
        if isinstance(node, DynamicSupervisor):
            if isinstance(node.child, Child):
                template = dataclasses.replace(node.child, factory=partial(self._watch, node.child.factory))
                return dataclasses.replace(node, child=template)
            return dataclasses.replace(node, child=partial(self._watch, node.child))
        return dataclasses.replace(node, factory=partial(self._watch, node.factory))

    def _watch(self, factory: Callable[..., Actor[Any]], *args: Any) -> Actor[Any]:
        actor = factory(*args)
        if not isinstance(actor, Actor):
            return actor  # the runtime says what is wrong with it
        on_start, on_stop = actor.on_start, actor.on_stop

        async def starts() -> None:
            self._actors[actor.ref.id] = actor  # the id of a pool's worker is known only now
            await on_start()

        async def stops() -> None:
            self.stops.append(actor.ref.id)
            self._note(f"{actor.ref.id} stops")
            await on_stop()

        vars(actor).update(on_start=starts, on_stop=stops)
        return actor


@asynccontextmanager
async def open_test_system(
    *nodes: Node | Probe,
    seed: int = 0,
    no_dead_letters: bool = False,
    shutdown_deadline: float = 25.0,
    watch: Callable[[RunningSystem], None] | None = None,
) -> AsyncIterator[RunningSystem]:
    """Run a tree in virtual time. What the `actor_system` fixture does, for tests that cannot take it.

    Args:
        nodes: one `Supervisor`: the tree as it is. Otherwise the children of a root that never gives up.
        seed: of the schedule and of the backoff's jitter.
        no_dead_letters: raise AssertionError at the end if a message went unhandled.
        watch: is given the system before it starts.

    Raises RealClock on the real clock; otherwise what `open_system` raises, and what the body raises, bare.
    """
    require_virtual_time()
    running = RunningSystem()
    if watch is not None:
        watch(running)
    tree = running._watched(_tree([node.child() if isinstance(node, Probe) else node for node in nodes]))
    assert isinstance(tree, Supervisor)
    seed_schedule(seed)
    async with open_system(
        tree, shutdown_deadline=shutdown_deadline, rng=Random(seed), observer=running._observe
    ) as running.system:
        running.system.dead_letters.subscribe(running._letter)
        yield running
    letters = running.system.dead_letters.counts
    if no_dead_letters and letters:
        counted = ", ".join(f"{count} {reason} at {actor}" for (actor, reason), count in sorted(letters.items()))
        last = "".join(f"\n  {letter.actor}: {letter.message!r} ({letter.reason})" for letter in running.dead_letters)
        raise AssertionError(f"messages went unhandled: {counted}{last}")


def _tree(nodes: list[Node]) -> Supervisor:
    if len(nodes) == 1 and isinstance(nodes[0], Supervisor):
        return nodes[0]
    return Supervisor("root", intensity=None, children=nodes)


async def _raise(error: BaseException) -> None:
    raise error
