"""What a partition's tracker says is done, whatever the order of finishing: against a set of offsets."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.consumers.done_map import LIMIT, MAP_LIMIT, Unreadable, decode, encode
from actors.consumers.tracker import Epoch, PartitionTracker
from backends.ports.groups import Commit, Start


def tracker(*taken: int, offset: int = 0, metadata: str = "") -> PartitionTracker:
    made = PartitionTracker(Start(offset, 1, metadata))
    for at in taken:
        made.begin(at, float(at))
    return made


def finish(partition: PartitionTracker, *offsets: int) -> None:
    for offset in offsets:
        assert partition.done(offset, partition.epoch)


def restarted(partition: PartitionTracker, mark: int = 0) -> PartitionTracker:
    commit = partition.commit(mark)
    return PartitionTracker(Start(commit.offset, 2, commit.metadata))


def test_the_lowest_unfinished_offset_is_committed() -> None:
    partition = tracker(0, 1, 2, 3)
    assert partition.commit() == Commit(0)
    finish(partition, 0)
    assert partition.commit() == Commit(1)
    finish(partition, 2, 3)
    assert partition.commit().offset == 1
    finish(partition, 1)
    assert partition.commit() == Commit(4)


def test_what_was_finished_out_of_order_is_not_handed_over_again_after_a_restart() -> None:
    partition = tracker(*range(6))
    finish(partition, 0, 2, 3, 5)
    again = restarted(partition)
    assert [offset for offset in range(1, 8) if again.begin(offset, 0.0)] == [1, 4, 6, 7]


def test_it_survives_a_restart_that_polled_nothing() -> None:
    partition = tracker(*range(6))
    finish(partition, 2, 3)
    twice = restarted(restarted(partition))
    assert [offset for offset in range(6) if twice.begin(offset, 0.0)] == [0, 1, 4, 5]


def test_offsets_that_the_log_no_longer_has_hold_nothing_up() -> None:
    partition = tracker(3, 7, 8)
    finish(partition, 3)
    assert partition.commit() == Commit(7)
    finish(partition, 7, 8)
    assert partition.commit() == Commit(9)


def test_work_of_an_epoch_that_has_ended_changes_nothing() -> None:
    partition = tracker(0, 1)
    old = partition.epoch
    partition.give_up()
    assert not partition.done(0, old)
    assert partition.commit() == Commit(0)
    assert not partition.done(0, Epoch(0))


def test_after_a_rewind_everything_is_taken_anew() -> None:
    partition = tracker(0, 1, 2)
    old = partition.epoch
    finish(partition, 0, 1)
    with pytest.raises(ValueError, match="rewind first"):
        partition.begin(1, 0.0)
    partition.rewind(1)
    assert partition.begin(1, 0.0)
    assert not partition.done(2, old)
    assert partition.commit() == Commit(1)


def test_the_mark_says_what_may_have_been_in_hand() -> None:
    again = restarted(tracker(0, 1, 2), mark=2)
    assert (again.suspect_below, again.committable()) == (2, 0)
    assert restarted(again).suspect_below == 0, "a stop in order clears it"


def test_the_age_is_that_of_the_lowest_unfinished_record() -> None:
    partition = tracker(4, 5)
    assert partition.oldest() == 4.0
    finish(partition, 4)
    assert partition.oldest() == 5.0
    finish(partition, 5)
    assert (partition.oldest(), partition.unfinished) == (None, 0)


def alternating(records: int) -> PartitionTracker:
    """Every second record is done: what neither encoding likes."""
    partition = tracker(*range(records))
    finish(partition, *range(1, records, 2))
    return partition


def test_metadata_that_fills_up_stops_the_taking_before_it_overflows() -> None:
    crowded = next(n for n in range(1000, 100_000, 500) if alternating(n).crowded())
    used = len(alternating(crowded).commit().metadata)
    assert 0.70 * LIMIT < used < 0.80 * LIMIT
    partition = alternating(crowded)
    finish(partition, 0, 2)
    assert partition.crowded()
    finish(partition, *range(4, crowded, 2))
    assert not partition.crowded()


def test_one_stuck_record_among_many_done_ones_does_not_fill_it() -> None:
    partition = tracker(*range(100_000))
    finish(partition, *range(1, 100_000))
    assert not partition.crowded()
    assert len(partition.commit().metadata) < 20


def test_what_does_not_fit_is_left_out_from_the_top() -> None:
    partition = alternating(100_000)
    metadata = partition.commit().metadata
    assert len(metadata) <= LIMIT
    done = decode(0, metadata).done
    assert 1000 < len(done) < 50_000
    assert done == tuple((at, at + 1) for at in range(1, 2 * len(done), 2))


@pytest.mark.parametrize("metadata", ["x", "w2:0:", "w1:0:r?", "w1:0:xAA", "w1:-1:", "w1:a:", "w1:0:rAQ", "w1:0:r////"])
def test_metadata_of_somebody_else_is_not_understood_and_not_trusted(metadata: str) -> None:
    with pytest.raises(Unreadable):
        decode(5, metadata)
    partition = tracker(offset=5, metadata=metadata)
    assert partition.unreadable
    assert partition.begin(5, 0.0)


RANGES = st.lists(st.integers(1, 300), min_size=1, max_size=400)


@given(st.integers(0, 2**40), st.integers(0, 1000), RANGES)
def test_what_is_encoded_is_decoded(offset: int, ahead: int, lengths: list[int]) -> None:
    ends = [offset]
    for length in lengths:
        ends.append(ends[-1] + length)
    done = list(zip(ends[1::2], ends[2::2], strict=False))
    metadata, fitted = encode(offset, offset + ahead, done)
    assert len(metadata) <= LIMIT
    if fitted:
        assert decode(offset, metadata) == (offset + ahead, tuple(done))


@given(st.text(max_size=60), st.binary(max_size=60))
def test_whatever_stands_there_it_is_read_or_refused(text: str, raw: bytes) -> None:
    for metadata in (text, f"w1:{text}", f"w1:0:b{raw.hex()}", f"w1:0:r{raw.hex()}"):
        try:
            decode(0, metadata)
        except Unreadable:
            pass


class Owners(RuleBasedStateMachine):
    """A partition handed from owner to owner. The oracle: the set of offsets ever finished, and the log's content."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []  # the offsets that exist
        self.end = 0
        self.finished: set[int] = set()
        self.stored = Commit(0)
        self.stored_done: set[int] = set()
        self.epochs = 0
        self.assign()

    def assign(self) -> None:
        self.epochs += 1
        self.owner = PartitionTracker(Start(self.stored.offset, self.epochs, self.stored.metadata))
        assert not self.owner.unreadable
        self.taken: set[int] = set()
        self.stale = getattr(self, "stale", []) + [(at, Epoch(self.epochs - 1)) for at in getattr(self, "hand", ())]
        self.hand: list[int] = []
        self.finished = set(self.stored_done)

    @rule(many=st.integers(1, 40), gap=st.integers(0, 3))
    def append(self, many: int, gap: int) -> None:
        self.log += range(self.end + gap, self.end + gap + many)
        self.end += gap + many

    @rule(share=st.floats(0, 1), data=st.data())
    def compact(self, share: float, data: Any) -> None:
        """The log loses records that no owner has taken."""
        at = self.owner.position
        lost = [offset for offset in self.log if offset >= at]
        gone = set(data.draw(st.lists(st.sampled_from(lost), max_size=5))) if lost else set()
        self.log = [offset for offset in self.log if offset not in gone]

    @rule(limit=st.integers(1, 50))
    def poll(self, limit: int) -> None:
        for offset in [at for at in self.log if at >= self.owner.position][:limit]:
            new = self.owner.begin(offset, 0.0)
            assert new == (offset not in self.finished), offset
            if new:
                self.hand.append(offset)

    @precondition(lambda self: self.hand)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        for offset in data.draw(st.lists(st.sampled_from(self.hand), unique=True, max_size=20)):
            assert self.owner.done(offset, self.owner.epoch)
            self.hand.remove(offset)
            self.finished.add(offset)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def a_stale_worker_finishes(self, data: Any) -> None:
        offset, epoch = data.draw(st.sampled_from(self.stale))
        assert not self.owner.done(offset, epoch)

    @rule(mark=st.integers(0, 50))
    def commit(self, mark: int) -> None:
        self.stored = self.owner.commit(self.owner.committable() + mark)
        assert len(self.stored.metadata) <= LIMIT
        self.owner.stored(self.stored, self.owner.committable() + mark)
        self.stored_done = set(self.finished)

    @rule()
    def lose_it(self) -> None:
        """Killed, or lost to somebody else: what was not committed is done again."""
        self.assign()

    @rule()
    def give_it_back(self) -> None:
        self.commit(0)
        self.owner.give_up()
        self.assign()

    @precondition(lambda self: self.owner.position > 0)
    @rule(data=st.data())
    def rewind(self, data: Any) -> None:
        to = data.draw(st.integers(0, self.owner.position - 1))
        self.stale += [(offset, self.owner.epoch) for offset in self.hand]
        self.owner.rewind(to)
        self.hand = []
        self.finished = {offset for offset in self.finished if offset < to}

    @invariant()
    def the_commit_is_right(self) -> None:
        commit = self.owner.commit()
        expected = min(self.hand, default=self.owner.position)
        assert commit.offset == expected
        above = {offset for offset in self.finished if offset >= expected}
        done = {offset for first, end in decode(commit.offset, commit.metadata).done for offset in range(first, end)}
        assert above <= done
        assert not done & set(self.hand)
        assert not {offset for offset in done - above if offset in self.log and offset >= self.owner.position}
        assert self.owner.unfinished == len(self.hand)


TestOwners = Owners.TestCase
TestOwners.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_limits_belong_together() -> None:
    assert MAP_LIMIT < LIMIT
