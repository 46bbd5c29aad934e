"""Many calls at a time: order per key, retries that hold their key alone, bounds, revokes, poison. In virtual time."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.consumers.dead_letters import describe
from actors.consumers.handler import ConsumerOptions
from actors.consumers.retry import Permanent
from actors.consumers.trials import Trials
from actors.event_log.messages import Append
from actors.metrics import Gauge, Metrics
from actors.runtime import Trace, current_trace
from backends.ports.entities import StoreUnavailable
from backends.ports.events import Partition, Record
from backends.ports.groups import Assignee, Commit, Start
from tests.consumers.fakes import MemoryLog, Recorder, count, record, running
from tests.consumers.groups import DLT, PARTITION, consumer, failing, log_with

PARALLEL = ConsumerOptions(concurrency=8, batch=1)


class Slow(Recorder):
    """Takes `seconds` for each event, and knows how many it has in hand."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.in_hand = 0
        self.most = 0

    async def handle(self, events: Sequence[Any]) -> None:
        self.in_hand += 1
        self.most = max(self.most, self.in_hand)
        try:
            await trio.sleep(self.seconds)
            await super().handle(events)
        finally:
            self.in_hand -= 1


async def test_keys_are_worked_off_beside_each_other_and_each_in_order(autojump_clock: MockClock) -> None:
    log = log_with(*(record(f"{key}{n}", key=key) for n in range(3) for key in "abcd"))
    handler = Slow()
    async with running(log, search=consumer(handler, options=PARALLEL)):
        await trio.sleep(3.5)
    assert handler.most == 4
    for key in "abcd":
        assert [id for id in handler.done if id[0] == key] == [f"{key}{n}" for n in range(3)]
    assert log.committed["search", PARTITION] == 12


async def test_calls_are_bounded(autojump_clock: MockClock) -> None:
    log = log_with(*(record(f"e{n}", partition=n % 2, key=f"k{n}") for n in range(40)))
    handler, options = Slow(), ConsumerOptions(concurrency=5, partition_concurrency=3, batch=1)
    async with running(log, search=consumer(handler, options=options)):
        await trio.sleep(1.5)
        assert handler.most == 5
        await trio.sleep(20)
    assert len(handler.done) == 40


@pytest.mark.parametrize("options", [PARALLEL, ConsumerOptions()], ids=["parallel", "batches"])
async def test_a_retry_blocks_its_key_alone(options: ConsumerOptions, autojump_clock: MockClock) -> None:
    log = log_with(record("bad", key="a"), record("behind", key="a"), record("other", key="b"))
    handler = failing("bad")
    async with running(log, search=consumer(handler, options=options)):
        await trio.sleep(0.3)
        log.add(record("another", key="c"))
        await trio.sleep(0.1)
        assert handler.done == ["other", "another"]
        assert log.committed["search", PARTITION] == 0, "the lowest unfinished offset"
        await trio.sleep(5)
    assert handler.done == ["other", "another", "behind"]
    assert [describe(letter).event_id for letter in log.read(DLT)] == ["bad"]
    assert log.committed["search", PARTITION] == 4


async def test_by_partition_a_retry_blocks_all_that_follows(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("bad", key="a"), record("other", key="b")), failing("bad")
    async with running(log, search=consumer(handler, options=ConsumerOptions(order="partition"))):
        await trio.sleep(0.3)
        assert handler.done == []
        await trio.sleep(5)
    assert handler.done == ["other"]


async def test_what_was_done_out_of_order_is_not_done_again_after_a_restart(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("bad", key="a"), record("b", key="b"), record("c", key="c")), failing("bad")
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.2)
    assert log.committed["search", PARTITION] == 0
    handler.failing.clear()
    async with running(log, search=consumer(handler)):
        await trio.sleep(5)
    assert sorted(handler.done) == ["b", "bad", "c"]


async def test_partitions_are_paused_while_too_much_waits_and_polling_goes_on(autojump_clock: MockClock) -> None:
    log = log_with(*(record(f"e{n}", key="hot") for n in range(100)), record("other", partition=1))
    handler, metrics = Slow(0.1), Metrics()
    options = ConsumerOptions(concurrency=4, batch=1, buffer=10, fetch=5)
    async with running(log, search=consumer(handler, metrics, options=options)):
        await trio.sleep(0.3)
        assert gauge(metrics, "weir_consumer_paused_partitions") == 1
        assert 5 <= gauge(metrics, "weir_consumer_in_flight") <= 15
        assert "other" in handler.done
        log.add(record("late", partition=1, key="z"))
        await trio.sleep(0.3)
        assert "late" in handler.done
        await trio.sleep(20)
    assert len(handler.done) == 102
    assert gauge(metrics, "weir_consumer_in_flight") == 0


def gauge(metrics: Metrics, name: str) -> float:
    family = next(family for family in metrics.families() if family.name == name)
    assert isinstance(family, Gauge)
    return family.collect()["search",]


async def test_a_permanent_failure_in_the_midst_is_buried_and_its_key_goes_on(autojump_clock: MockClock) -> None:
    log = log_with(record("bad", key="a"), record("next", key="a"), record("b", key="b"))
    handler = failing("bad", error=Permanent)
    for options in (PARALLEL, ConsumerOptions()):
        async with running(log, search=consumer(handler, options=options)):
            await trio.sleep(1)
        assert sorted(handler.done) == ["b", "next"]
        assert len(log.read(DLT)) == 1


async def test_an_outage_of_the_sink_charges_nobody_and_order_holds(autojump_clock: MockClock) -> None:
    log = log_with(*(record(f"{key}{n}", key=key) for n in range(3) for key in "ab"))
    handler = failing("a0", "b0", error=StoreUnavailable)
    async with running(log, search=consumer(handler, options=PARALLEL)):
        await trio.sleep(300)
        assert 10 < len(handler.calls) < 50, "with backoff"
        handler.failing.clear()
        await trio.sleep(40)
    for key in "ab":
        assert [id for id in handler.done if id[0] == key] == [f"{key}{n}" for n in range(3)]
    assert (log.saved, log.read(DLT)) == ([], [])


async def test_a_handler_runs_in_the_trace_of_its_event(autojump_clock: MockClock) -> None:
    seen: list[Trace | None] = []

    class Tracing:
        async def handle(self, events: Sequence[Any]) -> None:
            seen.append(current_trace())

    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    new = record("a")
    log = log_with(type(new)(new.topic, new.key, new.value, (*new.headers, ("traceparent", header.encode())), 0))
    async with running(log, search=consumer(Tracing())):
        await trio.sleep(0.1)
    (trace,) = seen
    assert trace is not None
    assert f"{trace.trace_id:032x}" == header[3:35]
    assert f"{trace.span_id:016x}" != header[36:52], "a span of its own"


# Poison: records that kill the process. A kill is a crash of the run; the log stays as it was.


class Killed(BaseException):
    """The process is gone: nothing more of it runs, and nothing is tidied up."""


async def until_killed(log: MemoryLog, handler: Any, options: ConsumerOptions) -> bool:
    """Whether *handler* killed the process. What the log was told after the kill never happened."""
    frozen: list[dict[str, Any]] = []

    class Deadly:
        async def handle(self, events: Sequence[Any]) -> None:
            if frozen or any(event.id == "poison" for _, event in events):
                if not frozen:
                    frozen.append(log.frozen())
                await trio.sleep_forever()
            await handler.handle(events)

    async with running(log, search=consumer(Deadly(), options=options)):
        await trio.sleep(20)
    if frozen:
        log.restore(frozen[0])
    return bool(frozen)


@pytest.mark.parametrize("options", [PARALLEL, ConsumerOptions()], ids=["parallel", "batches"])
async def test_a_record_that_kills_the_process_ends_in_the_dead_letters_and_nobody_with_it(
    options: ConsumerOptions, autojump_clock: MockClock
) -> None:
    log = log_with(*(record(f"e{n}", key=f"k{n}") for n in range(5)))
    log.add(record("poison", key="p"), record("after", key="p"))
    handler, kills = Recorder(), 0
    while await until_killed(log, handler, options):
        kills += 1
        assert kills < 10
    assert kills == 4, "once among others, when nobody can be charged, then three times counted"
    (letter,) = map(describe, log.read(DLT))
    assert (letter.event_id, letter.attempts, letter.exception) == ("poison", 3, "ProcessEnded")
    assert set(handler.done) == {"after", *(f"e{n}" for n in range(5))}
    assert log.committed["search", PARTITION] == 7


async def test_after_a_kill_those_that_were_in_hand_are_tried_alone_and_counted_first(
    autojump_clock: MockClock,
) -> None:
    log, handler = log_with(*(record(id, key=id) for id in "abc")), Recorder()
    log.committed["search", PARTITION] = 0
    log.metadata["search", PARTITION] = "w1:2:"
    async with running(log, search=consumer(handler)):
        await trio.sleep(1)
    assert [ids for _, ids in handler.calls] == [["a"], ["b"], ["c"]]
    assert [(offset, attempt.attempts) for _, offset, attempt in log.saved] == [(0, 1), (1, 1)]
    assert not log.read(DLT)


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_another_groups_trials_are_not_charged_for_a_kill(seconds: float, autojump_clock: MockClock) -> None:
    """Both groups have the same records in hand when one of them kills the process, time after time."""
    log = log_with(*(record(f"e{n}") for n in range(3)), record("poison", key="p"))
    frozen: list[dict[str, Any]] = []
    innocent = Recorder()

    class Deadly:
        async def handle(self, events: Sequence[Any]) -> None:
            if frozen or any(event.id == "poison" for _, event in events):
                await trio.sleep(0.005)  # it takes a moment to kill
                if not frozen:
                    frozen.append(log.frozen())
                await trio.sleep_forever()

    class Innocent:
        async def handle(self, events: Sequence[Any]) -> None:
            await trio.sleep(seconds)
            if frozen:
                await trio.sleep_forever()
            await innocent.handle(events)

    for _ in range(6):
        trials = Trials()
        deadly, other = consumer(Deadly(), trials=trials), consumer(Innocent(), trials=trials)
        other = partial(other.func, "audit", *other.args[1:2], Innocent(), **other.keywords)
        async with running(log, search=deadly, audit=other):
            await trio.sleep(20)
        if not frozen:
            break
        log.restore(frozen.pop())
        assert log.attempts.get(("audit", PARTITION), {}) == {}, "what it had tried was done, and that was stored"
    assert [describe(letter).event_id for letter in log.read(DLT)] == ["poison"]
    assert log.read("entity.changed.audit.dlt") == []
    assert {"e0", "e1", "e2", "poison"} == set(innocent.done)


# A member whose partitions come and go.


class Member:
    """All of one partition, until the test says otherwise."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.assignee: Assignee | None = None
        self.position = 0
        self.epoch = 0
        self.owned = False
        self.commits: list[Commit] = []
        self.polls = 0
        self.woken = trio.Event()

    def __call__(self, group: str, topics: Sequence[str]) -> "Member":
        return self

    async def join(self, assignee: Assignee) -> None:
        self.assignee = assignee
        await self.assign()

    async def assign(self) -> None:
        assert self.assignee is not None
        self.epoch += 1
        last = self.commits[-1] if self.commits else Commit(0)
        await self.assignee.assigned({PARTITION: Start(last.offset, self.epoch, last.metadata)})
        self.position, self.owned = last.offset, True  # only now: no poll returns while the other is under way
        self.woken.set()

    async def poll(self, limit: int, max_wait: float) -> list[Record]:
        self.polls += 1
        records = self.log.partitions[PARTITION][self.position :][:limit] if self.owned else []
        if not records:
            self.woken = trio.Event()
            with trio.move_on_after(max_wait):
                await self.woken.wait()
        self.position += len(records)
        return records

    def wake(self) -> None:
        self.woken.set()

    def pause(self, partitions: Collection[Partition]) -> None:
        return None

    def resume(self, partitions: Collection[Partition]) -> None:
        return None

    def seek(self, partition: Partition, offset: int) -> None:
        self.position = offset

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        await trio.lowlevel.checkpoint()
        assert self.owned, "a commit of what is somebody else's"
        self.commits.append(commits[PARTITION])

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_revoke_waits_for_what_is_in_hand_and_commits_it_and_starts_nothing_more(
    autojump_clock: MockClock,
) -> None:
    log = log_with(*(record(f"e{n}", key=f"k{n}") for n in range(20)))
    member, handler = Member(log), Slow(1.0)
    async with running(log, search=consumer(handler, options=PARALLEL, members=member)):
        await trio.sleep(0.5)
        assert member.assignee is not None
        began = trio.current_time()
        await member.assignee.revoked([PARTITION])
        member.owned = False
        assert trio.current_time() - began == pytest.approx(0.5)
        assert len(handler.done) == 8
        assert member.commits[-1] == Commit(8)
        await trio.sleep(5)
        assert len(handler.done) == 8
        await member.assign()
        await trio.sleep(5)
    assert sorted(handler.done) == sorted(f"e{n}" for n in range(20))


async def test_a_backoff_ends_at_once_on_revoke(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("bad", key="a"), record("b", key="b")), failing("bad")
    member = Member(log)
    async with running(log, search=consumer(handler, members=member)):
        await trio.sleep(0.1)
        assert member.assignee is not None
        began = trio.current_time()
        await member.assignee.revoked([PARTITION])
        member.owned = False
        assert trio.current_time() == began
        await trio.sleep(10)
        assert handler.times_of("bad") == [0.0, 0.0][: len(handler.times_of("bad"))], "not by this owner"
        await member.assign()
        await trio.sleep(10)
    assert handler.done == ["b"]
    assert [describe(letter).attempts for letter in log.read(DLT)] == [3], "counting goes on at the next owner"


async def test_a_revoke_does_not_wait_for_ever_and_what_is_cut_off_does_not_count(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a")), Slow(1000.0)
    member = Member(log)
    options = ConsumerOptions(concurrency=2, batch=1, drain=3.0, handler_timeout=10_000)
    async with running(log, search=consumer(handler, options=options, members=member)):
        await trio.sleep(0.5)
        assert member.assignee is not None
        began = trio.current_time()
        await member.assignee.revoked([PARTITION])
        member.owned = False
        assert trio.current_time() - began == pytest.approx(3.0)
        await trio.sleep(0.1)
        assert handler.in_hand == 0
        handler.seconds = 0.1
        await member.assign()
        await trio.sleep(1)
    assert handler.done == ["a"]
    assert (log.saved, log.read(DLT)) == ([], [])


async def test_of_a_partition_that_was_lost_nothing_is_committed_counted_or_buried(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a"), record("b", key="other")), failing("a", error=Permanent)
    member = Member(log)

    class Stubborn(Slow):
        async def handle(self, events: Sequence[Any]) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            await handler.handle(events)

    async with running(log, search=consumer(Stubborn(), options=PARALLEL, members=member)):
        await trio.sleep(0.5)
        assert member.assignee is not None
        member.owned = False
        await member.assignee.lost([PARTITION])
        before = list(member.commits)
        await trio.sleep(5)
        assert member.commits == before
        assert (log.saved, log.read(DLT)) == ([], [])


async def test_a_dead_letter_that_cannot_be_stored_alarms(autojump_clock: MockClock) -> None:
    log, metrics = log_with(record("bad")), Metrics()
    log.refuse.add(Append)
    async with running(log, search=consumer(failing("bad", error=Permanent), metrics)):
        await trio.sleep(30)
        assert count(metrics, "weir_dead_letters_refused_total", "search") > 3
        log.refuse.clear()
        await trio.sleep(60)
    assert len(log.read(DLT)) == 1


async def test_what_an_operator_sees(autojump_clock: MockClock) -> None:
    log, metrics = log_with(record("bad", key="a"), record("b", key="b")), Metrics()
    async with running(log, search=consumer(failing("bad"), metrics)) as system:
        await trio.sleep(0.3)
        search = next(child for child in system.snapshot()["children"] if child["id"] == "search")
        (partition,) = search["detail"]["partitions"]
        assert (partition["committed"], partition["position"], partition["in_flight"]) == (0, 2, 1)
        (waiting,) = partition["waiting"]
        assert (waiting["offset"], waiting["attempts"], waiting["due_at"]) == (0, 1, 0.5)
        assert gauge(metrics, "weir_consumer_waiting") == 1
        assert gauge(metrics, "weir_consumer_oldest_unfinished_seconds") == pytest.approx(0.3)


@pytest.mark.parametrize("keys", [1000, 1])
async def test_ten_thousand_records_of_one_partition_a_hundred_at_a_time(keys: int, autojump_clock: MockClock) -> None:
    """parallel-consumer's published shape: 0-5 ms of work each."""
    seconds = await took(keys, 10_000)
    if keys == 1000:
        assert seconds < 25.0 / 10
    else:
        assert seconds > 24.0


async def took(keys: int, total: int) -> float:
    work = Random(7)
    done, finished = 0, trio.Event()

    class Working:
        async def handle(self, events: Sequence[Any]) -> None:
            nonlocal done
            await trio.sleep(work.uniform(0, 0.005))
            done += len(events)
            if done == total:
                finished.set()

    log = log_with(*(record(f"e{n}", key=f"k{n % keys}") for n in range(total)))
    options = ConsumerOptions(concurrency=100, batch=1)
    began = trio.current_time()
    async with running(log, search=consumer(Working(), options=options)):
        await finished.wait()
        return trio.current_time() - began
