"""Which records of a partition may be handed over: order per key, waits that hold a key alone, suspects alone."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.consumers.dispatch import Call, Dispatcher
from actors.consumers.failure import Failure
from actors.consumers.handler import ConsumerOptions
from actors.consumers.partitions import Lane, Waiting
from backends.ports.event_log import Attempt
from backends.ports.events import Record
from backends.ports.groups import Start

ATTEMPT = Attempt(1, 9.0, 0.0, 0.0, "")


def resume(record: Record, attempt: Attempt) -> Waiting:
    return Waiting(record, attempt, attempt.due_at)


def lane(keys: str = "", *, exclusive: bool = True, by_key: bool = True, **start: Any) -> Lane:
    made = Lane(("t", 0), Start(0, 1, **start), by_key=by_key, exclusive=exclusive, resume=resume)
    made.attempts = {}
    if keys:
        made.add(records(keys), 0.0)
    return made


def records(keys: str, partition: int = 0, first: int = 0) -> list[Record]:
    """A record for each character, its key; "-" is no key."""
    return [
        Record("t", partition, first + at, 0, None if key == "-" else key.encode(), b"") for at, key in enumerate(keys)
    ]


def offsets(taken: list[Record]) -> list[int]:
    return [record.offset for record in taken]


def waiting(record: Record, due_at: float = 9.0) -> Waiting:
    return Waiting(record, ATTEMPT, due_at)


def test_all_that_is_ready_goes_at_once_in_order() -> None:
    partition = lane("abab-")
    assert offsets(partition.take(4).records) == [0, 1, 2, 3]
    assert offsets(partition.take(4).records) == [4]


def test_a_record_that_waits_holds_its_key_alone() -> None:
    partition = lane("abacb")
    first, *_ = partition.take(1).records
    partition.wait(waiting(first))
    assert offsets(partition.take(9).records) == [1, 3, 4]
    assert partition.take_due(8.9) is None
    due = partition.take_due(9.0)
    assert due is not None
    partition.settle(due)
    partition.finish([first])
    assert offsets(partition.take(9).records) == [2]


def test_with_calls_beside_each_other_what_is_in_hand_holds_its_key() -> None:
    partition = lane("aab", exclusive=False)
    first = partition.take(1).records
    assert offsets(partition.take(1).records) == [2]
    assert offsets(partition.take(1).records) == []
    partition.finish(first)
    assert offsets(partition.take(1).records) == [1]


def test_records_without_a_key_have_an_order_of_their_own_and_so_has_a_whole_partition() -> None:
    assert offsets(lane("-a-", exclusive=False).take(1).records) == [0]
    partition = lane("-a-", exclusive=False)
    partition.take(1)
    assert offsets(partition.take(9).records) == [1]
    partition = lane("ab", exclusive=False, by_key=False)
    partition.take(1)
    assert offsets(partition.take(9).records) == []


def test_what_an_earlier_life_tried_waits_for_its_turn_and_its_key_with_it() -> None:
    partition = lane("abab")
    partition.attempts = {2: ATTEMPT}
    assert offsets(partition.take(9).records) == [0, 1], "the first of its key is not done yet"
    assert offsets(partition.take(9).records) == [3]
    assert partition.next_due() == 9.0


def test_suspects_come_alone_and_before_the_others() -> None:
    partition = lane("abc", metadata="w1:2:")
    assert partition.take(9) == ([records("abc")[0]], True)
    partition.tracker.done(0, partition.tracker.epoch)
    assert offsets(partition.take(9).records) == [1]
    partition.tracker.done(1, partition.tracker.epoch)
    assert not partition.suspects()
    assert partition.take(9) == ([records("abc")[2]], False)


def test_a_rewind_forgets_what_was_not_in_hand() -> None:
    partition = lane("aab", exclusive=False)
    held = partition.take(1).records
    partition.add(records("aab"), 0.0)
    assert offsets(partition.take(1).records) == [2], "a is in hand until that call ends"
    partition.finish(held)
    assert offsets(partition.take(1).records) == [0]


def dispatcher(**options: Any) -> Dispatcher:
    return Dispatcher(ConsumerOptions(**options))


def with_lanes(dispatch: Dispatcher, *keys: str) -> Dispatcher:
    for partition, of in enumerate(keys):
        made = Lane(("t", partition), Start(0, 1), by_key=True, exclusive=dispatch.exclusive, resume=resume)
        made.attempts = {}
        if of:
            made.add(records(of, partition), 0.0)
        dispatch.lanes["t", partition] = made
    return dispatch


def test_one_call_at_a_time_takes_from_all_partitions() -> None:
    dispatch = with_lanes(dispatcher(batch=5), "abc", "ab")
    (call,) = dispatch.take(0.0)
    assert call.size == 5
    assert dispatch.take(0.0) == []
    dispatch.finished(call)


def test_calls_beside_each_other_are_bounded_in_all_and_in_each_partition() -> None:
    dispatch = with_lanes(dispatcher(concurrency=3, partition_concurrency=2, batch=1), "abcd", "ab")
    calls = dispatch.take(0.0)
    assert len(calls) == 3
    assert max(lane.calls for lane in dispatch.lanes.values()) == 2
    dispatch.finished(calls[0])
    assert len(dispatch.take(0.0)) == 1


def test_partitions_are_paused_when_full_and_resumed_at_half() -> None:
    dispatch = with_lanes(dispatcher(buffer=4, buffer_total=6), "abcd", "")
    assert dispatch.pauses().pause == [("t", 0)]
    (call,) = dispatch.take(0.0)
    assert dispatch.pauses().resume == []
    for record in records("ab"):
        call.parts[0].lane.tracker.done(record.offset, call.parts[0].epoch)
    assert dispatch.pauses().resume == [("t", 0)]
    dispatch.lanes["t", 1].add(records("abcd", 1), 0.0)
    assert dispatch.in_flight() == 6
    assert sorted(dispatch.pauses().pause) == [("t", 0), ("t", 1)]


class Keys(RuleBasedStateMachine):
    """Whatever is done in whatever order: of each key, a record begins when all before it are done or dead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.begun: dict[tuple[int, bytes | None], list[int]] = {}
        self.done: set[tuple[int, int]] = set()
        self.log: list[list[Record]] = [[], []]
        self.calls: list[Call] = []
        self.dispatch: Dispatcher = with_lanes(self.options(), "", "")

    def options(self) -> Dispatcher:
        return dispatcher(concurrency=1, batch=7)

    @rule(partition=st.integers(0, 1), keys=st.text("abcde-", min_size=1, max_size=12))
    def append(self, partition: int, keys: str) -> None:
        new = records(keys, partition, len(self.log[partition]))
        self.log[partition] += new
        self.dispatch.lanes["t", partition].add(new, 0.0)

    @rule(seconds=st.integers(0, 3))
    def take(self, seconds: int) -> None:
        self.now += seconds
        for call in self.dispatch.take(self.now):
            self.calls.append(call)
            for part in call.parts:
                for record in part.records:
                    self.check(record, part.records)

    def check(self, record: Record, together: list[Record]) -> None:
        mine = [one for one in self.log[record.partition] if one.key == record.key and one.offset < record.offset]
        for before in mine:
            assert (before.partition, before.offset) in self.done or before in together[: together.index(record)]
        assert (record.partition, record.offset) not in self.done

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def end_a_call(self, data: Any) -> None:
        call = data.draw(st.sampled_from(self.calls))
        self.calls.remove(call)
        fate = data.draw(st.sampled_from(["done", "away", "one fails", "dead"]))
        for part in call.parts:
            failing = data.draw(st.sampled_from(part.records)) if fate in ("one fails", "dead") else None
            behind: list[Record] = []
            for record in part.records:
                if part.lane.waits(record) and call.waiting is None:
                    behind.append(record)
                elif fate == "away":
                    if call.waiting is None:
                        behind.append(record)
                elif record is failing and fate == "one fails":
                    part.lane.wait(Waiting(record, ATTEMPT, self.now + 2))
                else:
                    if record is failing:
                        buried = Waiting(record, ATTEMPT, self.now, Failure("x", ""))
                        part.lane.wait(buried)
                        part.lane.settle(buried)
                    elif call.waiting is not None:
                        part.lane.settle(call.waiting)
                    assert part.lane.tracker.done(record.offset, part.epoch)
                    self.done.add((record.partition, record.offset))
            part.lane.put_back(behind)
        self.dispatch.finished(call)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        for partition, lane in self.dispatch.lanes.items():
            unfinished = len(self.log[partition[1]]) - sum(p == partition[1] for p, _ in self.done)
            assert lane.tracker.unfinished == unfinished

    def teardown(self) -> None:
        """Left alone, everything gets done."""
        for _ in range(500):
            for call in self.calls:
                for part in call.parts:
                    for record in part.records:
                        if call.waiting is not None:
                            part.lane.settle(call.waiting)
                        part.lane.tracker.done(record.offset, part.epoch)
                self.dispatch.finished(call)
            self.now += 1
            self.calls = self.dispatch.take(self.now)
        assert self.dispatch.in_flight() == 0
        assert self.dispatch.running == 0


class KeysApart(Keys):
    def options(self) -> Dispatcher:
        return dispatcher(concurrency=4, partition_concurrency=3, batch=3)


TestKeys = Keys.TestCase
TestKeys.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestKeysApart = KeysApart.TestCase
TestKeysApart.settings = TestKeys.settings
