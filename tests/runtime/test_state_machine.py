"""A state machine over whole trees: rules send, cancel, crash, end, start and let time pass, in any order.

After every rule, when all has come to rest:

- every message is in exactly one place: an open ask or an accepted tell is queued, waiting for room, to be given
  again or in hand, once; a settled one is nowhere;
- at most one incarnation of an actor is alive, and each that ended was reported once;
- one sender's messages were begun in the order in which it sent them;
- a supervisor has let exactly `intensity` failures pass in its period, and a temporary child has not come back.

At the end every ask has ended once, in a listed outcome; children have stopped in reverse order and in time; no task is
left behind.
"""

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actors.runtime import (
    ActorError,
    ActorExited,
    ActorTakenDown,
    Backoff,
    Child,
    DynamicSupervisor,
    Event,
    Mailbox,
    Pool,
    Supervisor,
    SupervisorGaveUp,
    System,
)
from actors.runtime import open_system as open_real_system
from actors.runtime.cell import Cell
from tests.runtime.conftest import seed_schedule
from tests.runtime.guest import Guest
from tests.runtime.scenario import BatchWorker, Message, PlainBatchWorker, PlainWorker, Record, Step, Worker, attempt

DEADLINE = 1.5  # below what the children's budgets add up to
PERIOD = 5.0
TARGETS = ("a", "b", "c", "d.x", "d.y", "e", "p", "p.1")
CHILDREN = ("d.x", "d.y")
SENDERS = range(3)

one_of = st.sampled_from
STRATEGIES = one_of(["one_for_one", "one_for_all", "rest_for_one"])
SECONDS = one_of([0.0, 0.1, 0.4, 0.7, 2.0])
WORKS = one_of(["echo", "echo", "sleep", "later", "later_lost", "refuse", "crash", "crash_once", "crash_task", "stop"])
HOW = one_of(["ask", "ask", "ask_timeout", "tell", "try_tell"])
WORKERS = st.fixed_dictionaries(
    {
        "actor": one_of([Worker, PlainWorker, BatchWorker, PlainBatchWorker]),
        "slow_stop": one_of([0.0, 0.1, 5.0]),
        "start_failures": st.lists(st.booleans(), max_size=2),
        "mailbox": st.builds(Mailbox, st.integers(1, 3), one_of(["wait", "reject", "drop_new", "drop_old"])),
        "on_crash": one_of(["fail", "retry_once"]),
        "restart": one_of(["permanent", "permanent", "transient", "temporary"]),
        "backoff": st.builds(Backoff, one_of([0.0, 0.3]), min=st.just(0.1), max=st.just(0.8)),
    }
)
ALIKE = ("mailbox", "on_crash", "backoff")


class Trees(RuleBasedStateMachine):
    """The tree: a, a pool p, an inner supervisor of b and c, a dynamic supervisor d, e."""

    opened = False

    @initialize(
        seed=st.integers(0, 2**32),
        workers=st.tuples(*[WORKERS] * 6),
        strategies=st.tuples(STRATEGIES, STRATEGIES),
        intensities=st.tuples(one_of([None, 2]), one_of([1, 2]), one_of([0, 2])),
        pooled=one_of(["round_robin", "least_queued", "hash"]),
        budget=one_of(["per_child", "shared"]),
    )
    def open(
        self,
        seed: int,
        workers: tuple[dict[str, Any], ...],
        strategies: Any,
        intensities: Any,
        pooled: Any,
        budget: Any,
    ) -> None:
        seed_schedule(seed)
        self.record = Record()
        self.events: list[tuple[float, Event]] = []
        self.scopes: dict[Message, trio.CancelScope] = {}
        self.sent: list[Message] = []
        self.passed: set[Message] = set()
        self.numbers = Counter[int]()
        self.asked_to_end: set[str] = set()
        self.gave_up = False
        self.guest = Guest()
        a, b, c, d, e, p = workers
        key: Callable[[Message], int] | None = (lambda message: message.sender) if pooled == "hash" else None
        pool: dict[str, Any] = {name: p[name] for name in ALIKE}
        dynamic: dict[str, Any] = {name: d[name] for name in (*ALIKE, "restart")}
        self.inner = Supervisor(
            "inner",
            strategy=strategies[1],
            intensity=intensities[1],
            period=PERIOD,
            backoff=Backoff(min=0.1, max=0.8),
            children=[self.child("b", b), self.child("c", c)],
        )
        self.tree = Supervisor(
            "root",
            strategy=strategies[0],
            intensity=intensities[0],
            period=PERIOD,
            children=[
                self.child("a", a),
                Pool("p", self.factory(p), size=2, route=pooled, key=key, shutdown=0.5, period=PERIOD, **pool),
                self.inner,
                DynamicSupervisor(
                    "d",
                    Child("", self.factory(d), shutdown=0.5, **dynamic),
                    max_children=2,
                    budget=budget,
                    intensity=intensities[2],
                    period=PERIOD,
                ),
                self.child("e", e),
            ],
        )
        self.opened = True
        self.guest.do(self.start)

    def factory(self, shape: dict[str, Any]) -> Callable[[], Worker]:
        """The first start (both, in a pool) succeeds: a failed one ends the system, another test's concern."""
        return partial(shape["actor"], self.record, [*shape["start_failures"], False, False], shape["slow_stop"])

    def child(self, id: str, shape: dict[str, Any]) -> Child:
        options: dict[str, Any] = {name: shape[name] for name in (*ALIKE, "restart")}
        return Child(id, self.factory(shape), shutdown=0.5, **options)

    async def start(self) -> None:
        self.tasks = trio.lowlevel.current_statistics().tasks_living
        self.close_system = trio.Event()
        self.ready = trio.Event()
        self.closed = trio.Event()
        trio.lowlevel.spawn_system_task(self.live)
        while not self.ready.is_set():
            self.guest.clock.jump(0.01)
            await trio.testing.wait_all_tasks_blocked()

    async def live(self) -> None:
        try:
            async with (
                trio.open_nursery() as self.nursery,
                open_real_system(
                    self.tree, shutdown_deadline=DEADLINE, rng=Random(1), observer=self.observe
                ) as self.system,
            ):
                self.system.dead_letters.subscribe(self.record.letters.append)
                self.ready.set()
                await self.close_system.wait()
                self.record.lives.clear()
                self.closing_at = trio.current_time()
        except BaseExceptionGroup as group:
            rest = group.split(SupervisorGaveUp)[1]
            if rest is not None:
                raise rest from None
            self.gave_up = True
        self.ended_at = trio.current_time()
        self.closed.set()

    def observe(self, event: Event) -> None:
        self.events.append((trio.current_time(), event))

    def running(self) -> bool:
        return self.opened and not self.closed.is_set()

    def known(self, id: str) -> bool:
        return self.running() and id in self.system._nodes

    # The rules.

    @precondition(running)
    @rule(to=one_of(TARGETS), sender=one_of(SENDERS), how=HOW, work=WORKS, seconds=SECONDS)
    def send(self, to: str, sender: int, how: str, work: str, seconds: float) -> None:
        self.send_all(to, [(sender, how, work, seconds)])

    @precondition(running)
    @rule(to=one_of(TARGETS), what=st.lists(st.tuples(HOW, WORKS, SECONDS), min_size=2, max_size=4))
    def send_together(self, to: str, what: list[tuple[str, str, float]]) -> None:
        """Each from another sender, for tasks that begin together do so in any order."""
        self.send_all(to, [(len(SENDERS) + number, *message) for number, message in enumerate(what)])

    def send_all(self, to: str, what: list[tuple[int, str, str, float]]) -> None:
        async def begin() -> None:
            for message in messages:
                self.nursery.start_soon(within, message)

        async def within(message: Message) -> None:
            with self.scopes[message]:
                await attempt(self.system, self.record, message)

        messages: list[Message] = []
        for sender, how, work, seconds in what if self.known(to) else []:
            message = Message(sender, self.numbers[sender], Step(0.0, how, to, work, seconds))
            self.numbers[sender] += 1
            self.scopes[message] = trio.CancelScope()
            messages.append(message)
        self.sent += messages
        self.guest.do(begin)

    @precondition(running)
    @rule(to=one_of(["a", "b", "c", "e", "p.1"]), times=st.integers(2, 4))
    def crash_often(self, to: str, times: int) -> None:
        for _ in range(times):
            if self.running():
                self.send_all(to, [(-1, "try_tell", "crash", 0.0)])
                self.guest.advance(0.4)

    @precondition(running)
    @rule(which=st.integers(0, 100))
    def cancel(self, which: int) -> None:
        async def now() -> None:
            self.scopes[waiting[which % len(waiting)]].cancel()

        waiting = [message for message in self.sent if not self.record.outcomes[message]]
        if waiting:
            self.guest.do(now)

    @precondition(running)
    @rule(to=one_of(["a", "b", "c", "d.x", "e", "p.1", "p.2"]))
    def crash_next(self, to: str) -> None:
        async def now() -> None:
            self.system.crash(to)

        if self.known(to):
            self.guest.do(now)

    @precondition(running)
    @rule(to=one_of(["a", "b", "c", "d.x", "p.2", "p"]), how=one_of(["stop", "drain", "kill"]), really=st.booleans())
    def end(self, to: str, how: str, really: bool) -> None:
        async def now() -> None:
            self.nursery.start_soon(getattr(self.system.ref(to), how))

        if really and self.known(to):
            self.asked_to_end |= {"p.1", "p.2"} if to == "p" else {to}
            self.guest.do(now)

    @precondition(running)
    @rule(id=one_of(CHILDREN))
    def start_child(self, id: str) -> None:
        async def in_time() -> None:
            try:
                await self.system.dynamic("d").start_child(id)
            except ActorError:
                pass

        async def now() -> None:
            self.nursery.start_soon(in_time)

        if not self.known(id):
            self.guest.do(now)
            self.guest.advance(0.01)

    @precondition(running)
    @rule(id=one_of(CHILDREN))
    def stop_child(self, id: str) -> None:
        async def now() -> None:
            self.nursery.start_soon(self.system.dynamic("d").stop_child, id)

        if self.known(id):
            self.guest.do(now)

    @rule(seconds=one_of([0.05, 0.1, 0.5, 1.0, 5.0, 5.01]))
    def advance(self, seconds: float) -> None:
        self.guest.advance(seconds)

    # What holds whenever nothing moves.

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        if not self.running() or self.system.failure is not None:
            return
        places = located(self.system)
        letters = Counter(letter.message for letter in self.record.letters)
        for message in self.sent:
            here, outcomes = places[message], self.record.outcomes[message]
            assert here <= 1, (message, "is in two places")
            match outcomes:
                case []:
                    assert here == 1, (message, "is awaited, and nowhere")
                case ["accepted"]:
                    if message.step.work == "later_lost":
                        continue  # dropped: it is neither done nor a dead letter
                    settled = bool(letters[message] or self.record.done[message])
                    assert here or settled, (message, "is nowhere")
                    # A Later may be answered while the rest of its batch is still being handled.
                    assert not (here and settled) or message.step.work in ("later", "sleep"), (
                        message,
                        "is settled, and there",
                    )
                case ["cancelled" | "AskTimeout"]:
                    assert here + letters[message] <= 1, message
                case [outcome]:
                    assert here == 0, (message, outcome, "is still there")

    @invariant()
    def one_incarnation_at_most_is_alive_and_its_end_is_reported_once(self) -> None:
        if not self.opened:
            return
        assert self.record.most_alive <= 1
        if not self.running() or self.system.failure is not None:
            return
        ends = Counter(e.actor for _at, e in self.events if isinstance(e, ActorExited | ActorTakenDown))
        for node in self.system._nodes.values():
            if isinstance(node, Cell) and node.id in ("a", "e") and node.spec.restart == "temporary":
                assert node.incarnation == 1
            if isinstance(node, Cell) and node.id not in CHILDREN:
                assert node.incarnation - 1 <= ends[node.id] <= node.incarnation, node.id

    @invariant()
    def one_senders_messages_are_begun_in_order(self) -> None:
        if not self.opened:
            return
        # The exception that is promised: who waits to be given again behind an answer given later lets new ones pass.
        for node in self.system._nodes.values() if self.running() else ():
            if isinstance(node, Cell) and node._current is not None and node._current.hand.laters.any_retried():
                self.passed |= {envelope.message for envelope in node.retry}
        check_order(self.record, self.passed)

    @invariant()
    def exactly_intensity_failures_pass(self) -> None:
        if not self.opened:
            return
        for supervisor in (self.tree, self.inner):
            if supervisor.intensity is not None:
                # With groups above or beside them, failures fall together with others, or with a stop.
                exact = {supervisor.strategy, self.tree.strategy} == {"one_for_one"}
                check_intensity(supervisor, supervisor.intensity, until_the_end(self.tree, self.events), exact)

    def teardown(self) -> None:
        if not self.opened:
            return

        async def close() -> bool:
            states = {node.state for node in self.system._nodes.values()}
            calm = states <= {"ready", "stopped", "backoff"} and not located(self.system)
            self.close_system.set()
            return calm

        async def left() -> int:
            return trio.lowlevel.current_statistics().tasks_living

        calm = self.guest.do(close)
        self.guest.advance(DEADLINE + 1.0)
        assert self.closed.is_set()
        if not self.gave_up:
            assert self.ended_at - self.closing_at <= DEADLINE + 1e-6
            if calm:
                check_stop_order(self.record, self.asked_to_end)
        assert not any(self.record.alive.values())
        for message in self.sent:
            (outcome,) = self.record.outcomes[message]
            assert outcome in OUTCOMES[message.step.how], (message, outcome)
            assert self.record.done[message] <= 1 + (self.record.begins[message] > 1)
            if outcome in ("ActorStopped", "ActorRestarting", "MailboxFull", "refused"):
                assert not self.record.begins[message] or outcome == "ActorStopped"
        assert self.guest.do(left) == self.tasks
        self.guest.close()


FAILURES = {"Reject", "ActorCrashed", "ActorRestarting", "ActorStopped", "MailboxFull", "NeverAnswered", "cancelled"}
OUTCOMES = {
    "ask": {"answered", *FAILURES},
    "ask_timeout": {"answered", "AskTimeout", *FAILURES},
    "tell": {"accepted", "ActorStopped", "MailboxFull", "cancelled"},
    "try_tell": {"accepted", "refused"},
}


def located(system: System) -> Counter[Message]:
    """How often each message is with an actor: queued, waiting for room, to be given again, or in hand."""
    found: Counter[Message] = Counter()
    for node in system._nodes.values():
        if isinstance(node, Cell):
            state = node.queue._receive._state
            envelopes = [*state.data, *state.send_tasks.values(), *node.retry]
            if node._current is not None:
                hand = node._current.hand
                envelopes += dict.fromkeys([*hand._envelopes, *hand.laters._open])
            found.update(envelope.message for envelope in envelopes)
    return found


def check_order(record: Record, passed: set[Message]) -> None:
    """Messages of one sender, but for those in *passed*, were begun in the order they were sent."""
    for messages in record.begun.values():
        begun = defaultdict[int, list[int]](list)
        for message in dict.fromkeys(messages):
            if message not in passed:
                begun[message.sender].append(message.number)
        assert all(numbers == sorted(numbers) for numbers in begun.values())


def check_stop_order(record: Record, others: set[str]) -> None:
    """From when the stop began, when nothing else went on: all but those *others* were stopped in reverse order."""
    order = ["a", "p.1", "p.2", "b", "c", "e"]
    stops = [life.removeprefix("stop ") for life in record.lives if life.startswith("stop ")]
    stops = [id for id in stops if id in order and id not in others]
    assert stops == sorted(stops, key=order.index, reverse=True)


def until_the_end(tree: Supervisor, events: list[tuple[float, Event]]) -> list[tuple[float, Event]]:
    """Those up to the failure for which the root gives up: everything is stopped for that one then."""
    ids = {child.id for child in tree.children}
    for number, (_at, event) in enumerate(events, 1):
        if isinstance(event, ActorExited) and event.actor in ids and event.next == "escalate":
            return events[:number]
    return events


def check_intensity(supervisor: Supervisor, intensity: int, events: list[tuple[float, Event]], exact: bool) -> None:
    """Those that pass are `intensity` in any period at most, and the one that does not is one more."""
    ids = {child.id for child in supervisor.children}
    window: deque[float] = deque()
    gives_up = False
    for at, event in events:
        if not isinstance(event, ActorExited | ActorTakenDown):
            continue
        if event.actor == supervisor.id:
            window.clear()
            gives_up = False
        counts = isinstance(event, ActorExited) and event.next in ("restart", "escalate")
        if gives_up or event.actor not in ids or not counts:
            continue
        window.append(at)
        while window[0] < at - supervisor.period:
            window.popleft()
        if event.next == "restart":
            assert len(window) <= intensity or not exact
            continue
        gives_up = True  # whatever else it finds down by then has no part in that
        if event.exit.kind != "start_failed":  # that of its own start escalates at once
            assert len(window) == intensity + 1 if exact else len(window) > intensity


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_whatever_is_done_to_a_tree(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "actors.runtime")
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Trees, settings=settings(max_examples=120, stateful_step_count=30, deadline=None)
    )
