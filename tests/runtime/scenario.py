"""Random trees, random plans of what is sent to them, and a record of what was seen."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
from hypothesis import strategies as st

from actors.runtime import (
    Actor,
    ActorCrashed,
    ActorRestarting,
    ActorStopped,
    AskTimeout,
    Backoff,
    Child,
    DeadLetter,
    InjectedCrash,
    Later,
    Mailbox,
    MailboxFull,
    NeverAnswered,
    Reject,
    Supervisor,
    System,
)

IDS = "abc"


@dataclass(frozen=True)
class Step:
    """What a sender does: wait `pause` seconds, then send a message that makes its actor do `work`."""

    pause: float
    how: str
    target: str
    work: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Message:
    sender: int
    number: int
    step: Step


@dataclass
class Record:
    """What was seen."""

    begun: dict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))
    done: Counter[Message] = field(default_factory=Counter)
    outcomes: dict[Message, list[str]] = field(default_factory=lambda: defaultdict(list))
    letters: list[DeadLetter] = field(default_factory=list)
    alive: Counter[str] = field(default_factory=Counter)
    most_alive: int = 0
    lives: list[str] = field(default_factory=list)

    @property
    def begins(self) -> Counter[Message]:
        """How often each message was begun."""
        return Counter(message for messages in self.begun.values() for message in messages)

    def enter(self, id: str) -> None:
        self.alive[id] += 1
        self.most_alive = max(self.most_alive, self.alive[id])


class Worker(Actor[Message]):
    """Notes what happens to it; what to do is in the message."""

    def __init__(self, record: Record, start_failures: list[bool], slow_stop: float) -> None:
        self.record = record
        self.start_failures = start_failures
        self.slow_stop = slow_stop
        self.ends_itself = False

    async def on_start(self) -> None:
        self.id = self.ref.id
        self.record.enter(self.id)
        self.record.lives.append(f"start {self.id}")
        try:
            await trio.sleep(0.01)
            if self.start_failures and self.start_failures.pop():
                raise OSError("start")
        except BaseException:
            self.record.alive[self.id] -= 1
            raise

    async def on_stop(self) -> None:
        by_itself = self.ends_itself or isinstance(self._cell.last_error, InjectedCrash)
        self.record.lives.append(f"end {self.id}" if by_itself else f"stop {self.id}")
        try:
            await trio.sleep(self.slow_stop)
        finally:
            self.record.alive[self.id] -= 1

    def begin(self, message: Message) -> None:
        self.record.begun[self.id].append(message)
        self.ends_itself |= message.step.work in ("crash", "crash_once", "crash_task", "stop")

    async def handle(self, message: Message) -> Any:
        self.begin(message)
        step = message.step
        match step.work:
            case "sleep":
                await trio.sleep(step.seconds)
            case "crash":
                raise RuntimeError("crash")
            case "crash_once" if self.record.begun[self.id].count(message) == 1:
                raise RuntimeError("once")
            case "refuse":
                raise Reject("no")
            case "later":
                later = self.later()
                self.spawn(self.answer, later, message)
                return later
            case "later_lost":
                return self.later()
            case "crash_task":
                self.spawn(self.fail)
            case "stop":
                self.stop()
        self.record.done[message] += 1
        return message

    async def fail(self) -> None:
        raise RuntimeError("in a task")

    async def answer(self, later: Later, message: Message) -> None:
        await trio.sleep(message.step.seconds)
        self.record.done[message] += 1
        later.answer(message)


class PlainWorker(Worker):
    """Its handler is a plain function; where the others sleep, it answers later."""

    def handle(self, message: Message) -> Any:
        self.begin(message)
        self.crash(message)
        return self.one(message)

    def crash(self, message: Message) -> None:
        if message.step.work == "crash":
            raise RuntimeError("crash")
        if message.step.work == "crash_once" and self.record.begun[self.id].count(message) == 1:
            raise RuntimeError("once")

    def one(self, message: Message) -> Any:
        match message.step.work:
            case "refuse":
                raise Reject("no")
            case "later" | "sleep":
                later = self.later()
                self.spawn(self.answer, later, message)
                return later
            case "later_lost":
                return self.later()
            case "crash_task":
                self.spawn(self.fail)
            case "stop":
                self.stop()
        self.record.done[message] += 1
        return message


class PlainBatchWorker(PlainWorker):
    batch_limit = 3

    def handle_batch(self, messages: list[Message]) -> list[Any]:
        for message in messages:
            self.begin(message)
        for message in messages:
            self.crash(message)
        return [self.result(message) for message in messages]

    def result(self, message: Message) -> Any:
        try:
            return self.one(message)
        except Reject as refusal:
            return refusal


class BatchWorker(Worker):
    batch_limit = 3

    async def handle_batch(self, messages: list[Message]) -> list[Any]:
        results: list[Any] = []
        finished: list[Message] = []
        for message in messages:
            self.begin(message)
        for message in messages:
            match message.step.work:
                case "crash":
                    raise RuntimeError("crash")
                case "crash_once" if self.record.begun[self.id].count(message) == 1:
                    raise RuntimeError("once")
                case "refuse":
                    results.append(Reject("no"))
                    continue
                case "later":
                    later = self.later()
                    self.spawn(self.answer, later, message)
                    results.append(later)
                    continue
                case "sleep":
                    await trio.sleep(message.step.seconds)
                case "crash_task":
                    self.spawn(self.fail)
                case "stop":
                    self.stop()
            finished.append(message)
            results.append(message)
        self.record.done.update(finished)
        return results


async def send(system: System, record: Record, sender: int, steps: list[Step]) -> None:
    for number, step in enumerate(steps):
        await trio.sleep(step.pause)
        await attempt(system, record, Message(sender, number, step))


async def attempt(system: System, record: Record, message: Message) -> None:
    """Send it, and write down what came of that."""
    ref = system.ref(message.step.target)
    outcome = "cancelled"
    try:
        match message.step.how:
            case "ask":
                assert await ref.ask(message) is message
                outcome = "answered"
            case "ask_timeout":
                assert await ref.ask(message, timeout=0.4) is message
                outcome = "answered"
            case "tell":
                await ref.tell(message)
                outcome = "accepted"
            case "try_tell":
                outcome = "accepted" if ref.try_tell(message) else "refused"
    except (Reject, AskTimeout, MailboxFull, ActorCrashed, ActorRestarting, ActorStopped, NeverAnswered) as error:
        outcome = type(error).__name__
    finally:
        record.outcomes[message].append(outcome)


SECONDS = st.sampled_from([0.0, 0.0, 0.1, 0.4, 0.7])
STEPS = st.lists(
    st.builds(
        Step,
        pause=SECONDS,
        how=st.sampled_from(["ask", "ask_timeout", "tell", "try_tell"]),
        target=st.sampled_from(IDS),
        work=st.sampled_from(["echo", "echo", "sleep", "later", "refuse", "crash", "crash_once", "crash_task", "stop"]),
        seconds=SECONDS,
    ),
    max_size=10,
)


@st.composite
def trees(draw: st.DrawFn) -> Any:
    """A function from a record to a tree of a, b and c, with c perhaps under a supervisor of its own."""
    choose = st.sampled_from
    shapes: dict[str, dict[str, Any]] = {
        id: {
            "actor": draw(choose([Worker, PlainWorker, BatchWorker, PlainBatchWorker])),
            "start_failures": draw(st.lists(st.booleans(), max_size=2)),
            "slow_stop": draw(choose([0.0, 0.1, 5.0])),
            "mailbox": Mailbox(draw(st.integers(1, 3)), draw(choose(["wait", "reject", "drop_new", "drop_old"]))),
            "on_crash": draw(choose(["fail", "retry_once"])),
            "restart": draw(choose(["permanent", "permanent", "transient", "temporary"])),
        }
        for id in IDS
    }
    strategies: list[Any] = [draw(choose(["one_for_one", "one_for_all", "rest_for_one"])) for _ in range(2)]
    intensity = draw(choose([None, None, 2]))
    nested = draw(st.booleans())

    def build(record: Record) -> Supervisor:
        children: list[Child | Supervisor] = []
        for id, shape in shapes.items():
            # The first start succeeds: a failed one ends the system, which is another test's concern.
            failures = [*shape["start_failures"], False]
            factory = partial(shape["actor"], record, failures, shape["slow_stop"])
            options = {key: shape[key] for key in ("mailbox", "on_crash", "restart")}
            children.append(Child(id, factory, shutdown=0.5, backoff=Backoff(min=0.1, max=0.8), **options))
        if nested:
            children[2:] = [Supervisor("inner", strategy=strategies[1], intensity=1, children=children[2:])]
        return Supervisor("root", strategy=strategies[0], intensity=intensity, children=children)

    return build
