"""The `introspector` actor on a scripted Auth Service, in virtual time."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import structlog
import trio
from actor_helpers import child, counts, gather, tree
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.authenticator.bearer import digest
from actors.authenticator.introspector import Introspector, Standing
from actors.authenticator.messages import AuthServiceAway, Introspect, NotValidated, Principal, UnusableAnswer
from actors.metrics import Metrics
from actors.runtime import Child, Reject, System

NOW = 1_000.0
AWAY = AuthServiceAway("no answer")


def active(subject: str = "ann", **claims: Any) -> bytes:
    return json.dumps({"active": True, "sub": subject, "exp": NOW + 60, **claims}).encode()


INACTIVE = b'{"active": false}'


class ScriptedService:
    """Answers with *answer*, after *delay* seconds; the probes' tokens are unknown to it as to anybody."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], bytes] = lambda token: active()
        self.probed: Callable[[], bytes] = lambda: INACTIVE
        self.delay = 0.0
        self.asked: list[bytes] = []
        self.probes: list[float] = []
        self.busy = self.most = self.closed = 0

    async def introspect(self, token: bytes) -> bytes:
        probe = len(token) > 20
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            if probe:
                self.probes.append(trio.current_time())
            else:
                self.asked.append(token)
            await trio.sleep(self.delay)
            return self.probed() if probe else self.answer(token)
        finally:
            self.busy -= 1

    async def aclose(self) -> None:
        self.closed += 1

    def is_away(self, error: AuthServiceAway = AWAY) -> None:
        def fail(*_: Any) -> bytes:
            raise error

        self.answer = self.probed = fail

    def is_back(self) -> None:
        self.answer, self.probed, self.delay = lambda token: active(), lambda: INACTIVE, 0.0


class World:
    def __init__(self) -> None:
        self.service = ScriptedService()
        self.metrics = Metrics()
        self.standing = Standing("https://auth.example/introspect")

    def child(self, **options: Any) -> Child:
        made = partial(Introspector, lambda: self.service, self.standing, self.metrics, lambda: NOW, **options)
        return child("introspector", made)

    def outcomes(self) -> dict[str, float]:
        """Without the probe of the start."""
        return {labels[0]: value for labels, value in counts(self.metrics, "weir_introspections_total").items()}


async def ask(system: System, *tokens: str) -> list[Any]:
    """The answers; in place of a `Reject` its error."""
    ref = system.ref("introspector")
    asks = (partial(ref.ask, Introspect(digest(token.encode()), token.encode())) for token in tokens)
    return [result.error if isinstance(result, Reject) else result for result in await gather(*asks)]


def detail(system: System) -> dict[str, Any]:
    shown: dict[str, Any] = system.snapshot()["children"][0]["detail"]
    return shown


async def test_tokens_are_principals_or_none(autojump_clock: MockClock) -> None:
    world = World()
    world.service.answer = lambda token: active() if token == b"good" else INACTIVE
    async with tree(world.child()) as system:
        await wait_all_tasks_blocked()
        assert await ask(system, "good", "bad") == [
            Principal("ann", frozenset(), "", NOW + 60, digest(b"good")),
            None,
        ]
        assert "degraded" not in detail(system)
    assert world.outcomes() == {"active": 1, "inactive": 2}
    assert world.service.closed == 1


async def test_a_token_for_another_audience_is_none(autojump_clock: MockClock) -> None:
    world = World()
    world.service.answer = lambda token: active(aud=token.decode())
    async with tree(world.child(audience="weir")) as system:
        assert [bool(found) for found in await ask(system, "weir", "other")] == [True, False]
    assert world.outcomes()["foreign"] == 1


async def test_only_so_many_are_asked_at_once_and_the_others_take_turns(autojump_clock: MockClock) -> None:
    world = World()
    world.service.delay = 0.1
    async with tree(world.child(concurrency=4)) as system:
        await trio.sleep(1)
        assert all(await ask(system, *(f"t{n}" for n in range(40))))
    assert world.service.most == 4


async def test_who_gets_no_turn_in_time_is_told_and_the_service_is_not_blamed(autojump_clock: MockClock) -> None:
    world = World()
    world.service.delay = 1.5
    async with tree(world.child(concurrency=1, waiting=3)) as system:
        await trio.sleep(2)
        answers = await ask(system, *"abcdef")
    assert [isinstance(answer, NotValidated) for answer in answers].count(True) == 4
    assert world.outcomes()["busy"] == 4
    assert world.standing.usable


async def test_a_few_failures_in_a_row_end_the_asking(autojump_clock: MockClock) -> None:
    world = World()
    async with tree(world.child()) as system:
        await wait_all_tasks_blocked()
        world.service.is_away()
        for _ in range(10):
            assert isinstance((await ask(system, "t"))[0], AuthServiceAway)
        assert len(world.service.asked) == 3
        assert detail(system)["degraded"] == "the Auth Service https://auth.example/introspect is away: no answer"


async def test_a_service_that_hangs_costs_the_first_a_timeout_and_nobody_else(autojump_clock: MockClock) -> None:
    world = World()
    async with tree(world.child(concurrency=4)) as system:
        await wait_all_tasks_blocked()
        world.service.delay = 1e9
        began = trio.current_time()
        answers = await ask(system, *(f"t{n}" for n in range(20)))  # 4 hang, 16 wait for a turn
        assert trio.current_time() - began == 2.0
        assert all(isinstance(answer, NotValidated) for answer in answers)
        assert isinstance((await ask(system, "later"))[0], AuthServiceAway)
        assert trio.current_time() - began == 2.0
    assert len(world.service.asked) == 4
    assert "did not answer within 2 s" in world.standing.reason


async def test_it_is_probed_until_it_is_back_and_no_caller_is_the_probe(autojump_clock: MockClock) -> None:
    world = World()
    async with tree(world.child()) as system:
        await wait_all_tasks_blocked()
        world.service.is_away()
        await ask(system, "a", "b", "c")
        began, world.service.probes = trio.current_time(), []
        while trio.current_time() < began + 20:
            await trio.sleep(0.01)
            await ask(system, "x")
        assert sorted(world.service.asked) == [b"a", b"b", b"c"]
        assert world.service.probes == pytest.approx([began + wait for wait in (0.5, 1.5, 3.5, 7.5, 12.5, 17.5)])
        world.service.is_back()
        await trio.sleep(5)
        assert isinstance((await ask(system, "x"))[0], Principal)
        assert "degraded" not in detail(system)
        assert world.outcomes()["spared"] > 1000


async def test_a_service_that_is_away_at_the_start_is_found_out_before_anybody_asks(autojump_clock: MockClock) -> None:
    world = World()
    world.service.is_away()
    async with tree(world.child()) as system:  # the start waits for nothing
        await wait_all_tasks_blocked()
        assert detail(system)["degraded"].endswith("no answer")
        assert isinstance((await ask(system, "t"))[0], AuthServiceAway)
        assert world.service.asked == []
        world.service.is_back()
        await trio.sleep(1)
        assert isinstance((await ask(system, "t"))[0], Principal)


async def test_refused_credentials_end_the_asking_at_once_with_one_line(autojump_clock: MockClock) -> None:
    world = World()
    async with tree(world.child()) as system:
        await wait_all_tasks_blocked()
        with structlog.testing.capture_logs() as lines:
            world.service.is_away(AuthServiceAway("it refuses our credentials", refused=True))
            await ask(system, "a")
            await ask(system, "b")
            await trio.sleep(30)
        assert [(line["event"], line["log_level"]) for line in lines] == [("auth_service.away", "error")]
        assert world.service.asked == [b"a"]


@pytest.mark.parametrize("lie", [b"<html>", b"[]", b'{"active": "yes"}'])
async def test_one_that_answers_something_else_is_away(lie: bytes, autojump_clock: MockClock) -> None:
    world = World()
    world.service.answer = lambda token: lie
    async with tree(world.child()) as system:
        for _ in range(5):
            assert isinstance((await ask(system, "t"))[0], AuthServiceAway)
    assert len(world.service.asked) == 3


async def test_one_that_calls_any_token_active_is_away(autojump_clock: MockClock) -> None:
    world = World()
    world.service.probed = active
    async with tree(world.child()) as system:
        await wait_all_tasks_blocked()
        assert isinstance((await ask(system, "t"))[0], AuthServiceAway)
        assert "nobody was given" in detail(system)["degraded"]
    assert world.service.asked == []


async def test_an_odd_token_is_refused_without_taking_the_service_from_the_others(autojump_clock: MockClock) -> None:
    world = World()
    world.service.answer = lambda token: active("" if token == b"odd" else "ann")
    async with tree(world.child()) as system:
        with structlog.testing.capture_logs() as lines:
            for _ in range(20):
                assert isinstance((await ask(system, "odd"))[0], UnusableAnswer)
        assert len(lines) == 1
        assert "gives answers of no use" in detail(system)["degraded"]
        assert isinstance((await ask(system, "good"))[0], Principal)
        assert "degraded" not in detail(system)


async def test_a_crash_costs_askers_time_and_forgets_nothing_of_how_the_service_is(autojump_clock: MockClock) -> None:
    world = World()
    world.service.delay = 1.0
    answers: list[Any] = []

    async def asker(system: System) -> None:
        answers.extend(await ask(system, "t"))

    async with tree(world.child()) as system, trio.open_nursery() as nursery:
        await trio.sleep(2)
        nursery.start_soon(asker, system)
        await wait_all_tasks_blocked()
        system.crash("introspector")
        nursery.start_soon(system.ref("introspector").ask, Introspect("d", b"poke"))
        await trio.sleep(5)
        assert isinstance(answers[0], Principal)
        world.service.is_away()
        await ask(system, "a", "b", "c")
        assert not world.standing.usable
        system.crash("introspector")
        assert isinstance((await ask(system, "d"))[0], AuthServiceAway)
        assert world.service.asked[-1] != b"d"


async def test_neither_what_it_is_asked_nor_what_it_says_of_itself_shows_a_token(autojump_clock: MockClock) -> None:
    world = World()
    world.service.delay = 1.0
    async with tree(world.child(concurrency=1)) as system, trio.open_nursery() as nursery:
        nursery.start_soon(ask, system, "hush-1", "hush-2")
        await wait_all_tasks_blocked()
        assert "hush" not in repr(system.snapshot())
        assert "hush" not in repr(Introspect("d", b"hush"))
