"""The proxy's decisions, as functions of values: balance, breaker, retries, and the reader of answers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.breaker import Health, HealthPolicy
from gateway.proxy.balance import choose
from gateway.proxy.breaker import admit
from gateway.proxy.reader import BadAnswer, Reader
from gateway.proxy.retries import RetryBudget, may_repeat

LOADS = st.lists(st.none() | st.integers(0, 5), max_size=8)
TURNS = st.integers(0, 1000)


@given(LOADS, TURNS)
def test_the_fewest_outstanding_is_chosen(loads: list[int | None], turn: int) -> None:
    chosen = choose(loads, turn, "least_outstanding")
    present = [load for load in loads if load is not None]
    if not present:
        assert chosen is None
    else:
        assert chosen is not None
        assert loads[chosen] == min(present)


@given(LOADS, TURNS)
def test_round_robin_takes_the_next_that_is_available(loads: list[int | None], turn: int) -> None:
    chosen = choose(loads, turn, "round_robin")
    line = [(turn + step) % len(loads) for step in range(len(loads))]
    assert chosen == next((index for index in line if loads[index] is not None), None)


@given(st.integers(1, 8), TURNS)
def test_those_with_equally_many_take_turns(size: int, turn: int) -> None:
    chosen = [choose([3] * size, turn + step, "least_outstanding") for step in range(size)]
    assert sorted(index for index in chosen if index is not None) == list(range(size))


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4), st.integers(0, 4))
def test_nobody_overtakes_those_who_wait(open: int, waiting: int, connections: int, pending: int) -> None:
    does = admit(open, waiting, connections, pending)
    assert (does == "connect") == (open < connections and not waiting)
    assert (does == "refuse") == (does != "connect" and waiting >= pending)


def test_what_may_be_sent_twice() -> None:
    assert may_repeat("POST", sent=False, consumed=False)
    assert may_repeat("GET", sent=True, consumed=False)
    assert may_repeat("PUT", sent=True, consumed=False)
    assert not may_repeat("POST", sent=True, consumed=False)
    assert not may_repeat("PATCH", sent=True, consumed=False)
    assert not may_repeat("GET", sent=False, consumed=True)


class Budget(RuleBasedStateMachine):
    """However requests and retries come, no more are retried than the share and the minimum allow."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RetryBudget(ratio=0.2, per_second=3.0, window=10.0)
        self.now = 100.0
        self.requests = self.retries = 0

    @rule(number=st.integers(1, 50))
    def requests_come(self, number: int) -> None:
        self.requests += number
        for _ in range(number):
            self.budget.count()

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=st.integers(1, 50))
    def retries_are_wanted(self, number: int) -> None:
        self.retries += sum(self.budget.take(self.now) for _ in range(number))

    @invariant()
    def within_the_budget(self) -> None:
        assert self.retries <= 30 + 0.2 * self.requests + 3.0 * (self.now - 100.0) + 1e-6


TestBudget = Budget.TestCase


def test_an_unused_budget_does_not_grow_for_ever() -> None:
    budget = RetryBudget(ratio=0.2, per_second=3.0, window=10.0)
    for _ in range(100_000):
        budget.count()
    assert sum(budget.take(1e6) for _ in range(1000)) == 130


class Breaker(RuleBasedStateMachine):
    """Healthy, ejected, one probe: a model beside it that keeps the words of its docstring."""

    POLICY = HealthPolicy(failures=3, base=1.0, cap=8.0)

    def __init__(self) -> None:
        super().__init__()
        self.health = Health(self.POLICY)
        self.now = 0.0
        self.in_a_row = 0
        self.ejections = 0
        self.until: float | None = None
        self.probe = False

    @rule(seconds=st.floats(0.1, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.until is None)
    @rule()
    def a_request_fails(self) -> None:
        self.in_a_row += 1
        assert self.health.failed(self.now, probe=False) == (self.in_a_row == 3)
        if self.in_a_row == 3:
            self.ejections, self.until = 1, self.now + 1.0

    @precondition(lambda self: self.until is not None)
    @rule()
    def an_old_request_fails(self) -> None:
        assert not self.health.failed(self.now, probe=False)

    @precondition(lambda self: self.until is not None and self.now >= self.until and not self.probe)
    @rule()
    def the_probe_goes(self) -> None:
        assert self.health.available(self.now)
        assert self.health.begin()
        self.probe = True

    @precondition(lambda self: self.probe)
    @rule()
    def the_probe_fails(self) -> None:
        assert self.health.failed(self.now, probe=True)
        self.until = self.now + min(8.0, 2.0**self.ejections)
        self.ejections += 1
        self.probe = False

    @precondition(lambda self: self.probe)
    @rule()
    def the_probe_says_nothing(self) -> None:
        self.health.abandon()
        self.probe = False

    @rule()
    def a_request_succeeds(self) -> None:
        assert self.health.succeeded() == (self.until is not None)
        self.in_a_row = self.ejections = 0
        self.until, self.probe = None, False

    @invariant()
    def it_is_available_when_it_should_be(self) -> None:
        expected = self.until is None or (self.now >= self.until and not self.probe)
        assert self.health.available(self.now) == expected
        assert self.health.retry_after(self.now) == max(0.0, (self.until or 0.0) - self.now)


TestBreaker = Breaker.TestCase

WHOLE = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
]


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 120), max_size=8))
def test_an_answer_reads_the_same_however_it_arrives(answer: bytes, cuts: list[int]) -> None:
    reader = Reader()
    for _ in range(2):
        reader.begin("GET")
        edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
        for begin, end in pairwise(edges):
            assert not reader.complete
            reader.feed(answer[begin:end])
        assert reader.reusable
        assert (reader.status, b"".join(reader.take())) == (200, b"hello")
        assert (b"x-a", b"1") in reader.headers
        assert b"x-t" not in dict(reader.headers)


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: %b\r\n" % (b"1" * 1000)),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"1" * 1000),
        (b"", b"HTTP/1.1 100 Continue\r\nX-A: %b\r\n\r\n" % (b"1" * 1000)),
    ],
)
def test_a_head_without_end_is_not_read_for_ever(begin: bytes, piece: bytes) -> None:
    reader = Reader()
    reader.begin("GET")
    reader.feed(begin)
    for _ in range(60):
        reader.feed(piece)
    reader.feed(piece * 3)
    with pytest.raises(BadAnswer, match="larger than 65536 bytes"):
        reader.feed(piece * 3)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([*WHOLE, b"HTTP/1.1 ", b"\r\n"]), max_size=6), st.booleans())
def test_whatever_arrives_is_an_answer_or_none(parts: list[bytes], head_only: bool) -> None:
    reader = Reader()
    reader.begin("HEAD" if head_only else "GET")
    try:
        for part in parts:
            if not reader.complete:
                reader.feed(part)
        reader.feed_end()
    except BadAnswer:
        assert not reader.reusable
    else:
        assert reader.head
        assert reader.complete
