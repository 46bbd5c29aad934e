"""The arithmetic of the rate limiter, and its buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rate_limiter.messages import Limit
from actors.rate_limiter.store import Buckets
from backends.ports.gcra import US, Gcra

quotas = st.integers(1, 10_000)
windows = st.integers(1, 3_600)
bursts = st.integers(1, 500)
gaps = st.lists(st.integers(0, 2 * US), max_size=80)


def limit(name: str = "caller", quota: int = 600, window_s: int = 60, burst: int = 60) -> Limit:
    return Limit(name, "token", quota, window_s, burst)


@given(quotas, windows, bursts, st.integers(0, 10**12))
def test_from_idle_exactly_burst_requests_are_admitted_at_once(quota: int, window_s: int, burst: int, now: int) -> None:
    buckets = Buckets([limit(quota=quota, window_s=window_s, burst=burst)])
    verdicts = [buckets.check([("caller", "a")], now) for _ in range(burst + 2)]
    assert [v.retry_after_s == 0 for v in verdicts] == [True] * burst + [False, False]


@given(quotas, windows, bursts, gaps)
def test_never_more_than_burst_plus_elapsed_times_rate(quota: int, window_s: int, burst: int, gaps: list[int]) -> None:
    buckets = Buckets([limit(quota=quota, window_s=window_s, burst=burst)])
    now = start = 5 * US
    admitted = 0
    for gap in gaps:
        now += gap
        admitted += buckets.check([("caller", "a")], now).retry_after_s == 0
        # Exact in integers: admitted <= burst + elapsed * quota / window.
        assert admitted * window_s * US <= burst * window_s * US + (now - start) * quota


@given(quotas, windows, st.integers(1, 20), gaps)
def test_a_refused_caller_is_admitted_exactly_at_its_retry_time(
    quota: int, window_s: int, burst: int, gaps: list[int]
) -> None:
    gcra = Gcra.of(quota, window_s, burst)
    tat, now_us = 0, 10**9
    for gap in gaps:
        now_us += gap
        wait = gcra.wait(tat, gcra.now(now_us))
        if wait <= 0:
            tat = gcra.charge(tat, gcra.now(now_us))
        else:
            retry_us = now_us + gcra.us(wait)
            assert gcra.wait(tat, gcra.now(retry_us)) <= 0
            assert gcra.wait(tat, gcra.now(retry_us - 1)) > 0


@given(quotas, windows, bursts, st.integers(0, 30))
def test_remaining_is_how_many_the_next_moment_admits(quota: int, window_s: int, burst: int, used: int) -> None:
    buckets = Buckets([limit(quota=quota, window_s=window_s, burst=burst)])
    remaining = burst
    for _ in range(used):
        remaining = buckets.check([("caller", "a")], 7 * US).states[0].remaining
    admitted = 0
    while buckets.check([("caller", "a")], 7 * US).retry_after_s == 0:
        admitted += 1
    assert admitted == remaining


def test_sustained_seven_a_second_is_seven_a_second_after_ten_minutes() -> None:
    """In whole microseconds 1/7 s is rounded, and the error adds up; in ticks there is none."""
    buckets = Buckets([limit(quota=7, window_s=1, burst=2)])
    arrivals = range(US, 601 * US, 15_000)
    admitted = sum(buckets.check([("caller", "a")], now).retry_after_s == 0 for now in arrivals)
    assert admitted in (7 * 600, 7 * 600 + 1)  # and the one more that the burst allows


def test_states_tell_quota_remaining_and_seconds_until_full_again() -> None:
    buckets = Buckets([limit(quota=600, window_s=60, burst=60)])
    for _ in range(15):
        verdict = buckets.check([("caller", "a")], US)
    state = verdict.states[0]
    assert (state.name, state.quota, state.window_s, state.remaining) == ("caller", 600, 60, 45)
    assert state.reset_s == 2  # 15 intervals of 0.1 s, rounded up


def test_retry_after_is_rounded_up_to_at_least_a_second() -> None:
    buckets = Buckets([limit(quota=600, window_s=60, burst=1)])
    buckets.check([("caller", "a")], US)
    assert buckets.check([("caller", "a")], US).retry_after_s == 1  # 0.1 s


def test_all_buckets_are_charged_or_none() -> None:
    buckets = Buckets([limit("caller", burst=5), limit("address", quota=60, window_s=60, burst=1)])
    both = [("caller", "t"), ("address", "ip")]
    assert buckets.check(both, US).retry_after_s == 0
    refused = buckets.check(both, US)
    assert refused.violated == ("address",)
    assert [state.remaining for state in refused.states] == [4, 0]
    assert buckets.check([("caller", "t")], US).states[0].remaining == 3


def test_of_two_violated_limits_the_longer_wait_counts() -> None:
    buckets = Buckets([limit("a", quota=1, window_s=10, burst=1), limit("b", quota=1, window_s=30, burst=1)])
    both = [("a", "x"), ("b", "x")]
    buckets.check(both, US)
    refused = buckets.check(both, US)
    assert (refused.retry_after_s, refused.violated) == (30, ("a", "b"))


def test_a_limit_that_is_no_longer_configured_is_passed_over() -> None:
    verdict = Buckets([limit("caller")]).check([("gone", "x"), ("caller", "x")], US)
    assert [state.name for state in verdict.states] == ["caller"]
    assert verdict.retry_after_s == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, US)), max_size=200))
def test_a_bounded_store_that_purges_decides_as_an_unbounded_one(calls: list[tuple[int, int]]) -> None:
    """A bucket that is full again is as good as none; so with room for all, purging changes no verdict."""
    bounded = Buckets([limit(quota=10, window_s=1, burst=3)], max_keys=31)
    oracle = {key: Buckets([limit(quota=10, window_s=1, burst=3)]) for key in range(31)}
    now = US
    for key, gap in calls:
        now += gap
        assert bounded.check([("caller", str(key))], now) == oracle[key].check([("caller", str(key))], now)
    assert bounded.evicted == 0


def test_buckets_that_are_full_again_make_room_by_themselves() -> None:
    buckets = Buckets([limit(quota=10, window_s=1, burst=1)], max_keys=10_000)
    for second in range(200):  # 10 new callers a second, each full again after 0.1 s
        for caller in range(10):
            buckets.check([("caller", f"{second}/{caller}")], (second + 1) * US)
    assert buckets.size()["caller"] <= 20


def test_beyond_max_keys_the_least_recently_charged_bucket_goes() -> None:
    buckets = Buckets([limit(quota=1, window_s=60, burst=1)], max_keys=2)
    for key in ("old", "new", "newest"):
        buckets.check([("caller", key)], US)
    assert (buckets.size()["caller"], buckets.evicted) == (2, 1)
    assert buckets.check([("caller", "new")], US).retry_after_s > 0
    assert buckets.check([("caller", "newest")], US).retry_after_s > 0


def test_a_reload_keeps_the_buckets_of_limits_with_the_same_numbers() -> None:
    buckets = Buckets([limit("same", burst=1), limit("other", burst=1)])
    both = [("same", "x"), ("other", "x")]
    buckets.check(both, US)
    buckets.reload([limit("same", burst=1), limit("other", burst=2)])
    assert buckets.check(both, US).violated == ("same",)


@pytest.mark.parametrize("numbers", [(0, 60, 1), (1, 0, 1), (1, 60, 0), (1_000_001, 1, 1)])
def test_numbers_that_make_no_limit_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError):
        Gcra.of(*numbers)


def test_two_limits_of_one_name_are_refused_and_change_nothing() -> None:
    buckets = Buckets([limit("caller")])
    with pytest.raises(ValueError, match="caller"):
        buckets.reload([limit("caller"), limit("caller")])
    assert buckets.check([("caller", "x")], US).states[0].quota == 600
