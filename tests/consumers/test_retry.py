"""When to try again: the formula, the counting, and what is never tried again."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.consumers.retry import Again, GiveUp, Permanent, RetryPolicy, after_failure, classify
from actors.consumers.sink import verdict_of
from actors.runtime import ActorCrashed, ActorRestarting, MailboxFull, Reject
from backends.ports.cloudevents import Undecodable
from backends.ports.entities import StoreUnavailable

POLICY = RetryPolicy()


@pytest.mark.parametrize(("failures", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (10_000, 30.0)])
def test_the_longest_wait_doubles_up_to_the_cap(failures: int, longest: float) -> None:
    assert POLICY.delay(failures, 1.0) == longest
    assert POLICY.delay(failures, 0.0) == longest / 2


@given(st.integers(1, 1000), st.floats(0, 1))
def test_a_wait_is_never_above_the_cap_nor_below_half_the_base(failures: int, jitter: float) -> None:
    assert 0.25 <= POLICY.delay(failures, jitter) <= 30.0


def test_the_first_delivery_counts_so_three_attempts_have_two_waits() -> None:
    first = after_failure(POLICY, None, permanent=False, error="one", now=100.0, jitter=1.0)
    assert isinstance(first, Again)
    assert (first.attempt.attempts, first.attempt.due_at) == (1, 100.5)
    second = after_failure(POLICY, first.attempt, permanent=False, error="two", now=101.0, jitter=1.0)
    assert isinstance(second, Again)
    assert (second.attempt.attempts, second.attempt.due_at) == (2, 102.0)
    third = after_failure(POLICY, second.attempt, permanent=False, error="three", now=103.0, jitter=1.0)
    assert isinstance(third, GiveUp)
    assert (third.attempt.attempts, third.attempt.first_at, third.attempt.last_at) == (3, 100.0, 103.0)
    assert third.attempt.error == "three"


def test_a_permanent_failure_is_given_up_at_once() -> None:
    verdict = after_failure(POLICY, None, permanent=True, error="no", now=1.0, jitter=0.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.attempt.attempts == 1


@given(st.floats(0, 1), st.floats(0, 100))
def test_a_receivers_wish_only_ever_lengthens_the_wait(jitter: float, wish: float) -> None:
    verdict = after_failure(POLICY, None, permanent=False, error="", now=0.0, jitter=jitter, at_least=wish)
    assert verdict.attempt.due_at == max(POLICY.delay(1, jitter), wish)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Permanent("x"), "permanent"),
        (Undecodable("x"), "permanent"),
        (msgspec.ValidationError("x"), "permanent"),
        (TypeError("x"), "permanent"),
        (OSError("x"), "transient"),
        (ValueError("x"), "transient"),
        (ActorCrashed("it may have been the event's doing"), "transient"),
        (StoreUnavailable("x"), "away"),
        (Reject(StoreUnavailable("x")), "away"),
        (Reject(Permanent("x")), "permanent"),
        (ActorRestarting("x", 1.0), "away"),
        (MailboxFull("x"), "away"),
    ],
)
def test_errors_are_permanent_or_transient_or_say_that_nobody_looked(error: Exception, verdict: str) -> None:
    assert verdict_of(error) == verdict


def test_an_unknown_exception_is_worth_another_attempt() -> None:
    assert classify(RuntimeError()) == "transient"


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base": 0.0}, {"base": 2.0, "cap": 1.0}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
