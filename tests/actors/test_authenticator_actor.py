"""The `authenticator` actor on a scripted cache manager."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog
import trio
from actor_helpers import Scripted, child, counts, gather, tree
from trio.testing import MockClock

from actors.authenticator.actor import Authenticator
from actors.authenticator.messages import Authenticate, AuthServiceAway, Failure, Principal
from actors.cache_manager.messages import ABSENT, MISS, TOKEN_VALIDATION, GetMany, Load
from actors.metrics import Metrics
from actors.runtime import Child, System

NOW = 1_000.0


def principal(digest: str, expires_at: float = NOW + 60) -> Principal:
    return Principal("ann", frozenset({"users:read"}), "client", expires_at, digest)


class ScriptedCache(Scripted):
    """As the cache manager does, it answers `GetMany` at once."""

    def __init__(self, found: dict[str, Any], answer: Callable[[Any], Awaitable[Any]], seen: list[Any]) -> None:
        super().__init__(answer, seen)
        self._found = found

    def handle(self, message: Any) -> Any:
        if not isinstance(message, GetMany):
            return super().handle(message)
        self._seen.append(message)
        assert message.kind == TOKEN_VALIDATION
        return [self._found.get(key, MISS) for key in message.keys]


class TokenCache:
    """A cache manager by script: what `GetMany` finds, and how `Load` goes."""

    def __init__(self, found: dict[str, Any], load: Callable[[str], Awaitable[Any]]) -> None:
        self.found = found
        self.load = load
        self.seen: list[Any] = []

    async def answer(self, message: Any) -> Any:
        assert isinstance(message, Load)
        assert message.kind == TOKEN_VALIDATION
        return await self.load(message.key)

    def tree(self, metrics: Metrics | None = None) -> tuple[Child, Child]:
        return (
            child("cache_manager", partial(ScriptedCache, self.found, self.answer, self.seen)),
            child("authenticator", partial(Authenticator, metrics or Metrics(), lambda: NOW)),
        )


async def never(_: str) -> Any:
    await trio.sleep_forever()


async def authenticate(system: System, *digests: str) -> list[Any]:
    ref = system.ref("authenticator")
    return await gather(*(partial(ref.ask, Authenticate(digest)) for digest in digests))


async def test_a_batch_is_one_lookup_of_its_distinct_digests(autojump_clock: MockClock) -> None:
    cache = TokenCache({"a": principal("a"), "b": ABSENT}, never)
    async with tree(*cache.tree()) as system:
        for digest in ("a", "b", "a"):
            system.ref("authenticator").try_tell(Authenticate(digest))
        assert await system.ref("authenticator").ask(Authenticate("b")) == Failure.INVALID_TOKEN
        (message,) = cache.seen
        assert sorted(message.keys) == ["a", "b"]
        assert await authenticate(system, "a", "b", "a") == [principal("a"), Failure.INVALID_TOKEN, principal("a")]


async def test_a_hit_does_not_wait_for_a_miss(autojump_clock: MockClock) -> None:
    cache = TokenCache({"a": principal("a")}, never)
    async with tree(*cache.tree()) as system, trio.open_nursery() as nursery:
        nursery.start_soon(authenticate, system, "slow")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(0.5):
            assert await authenticate(system, "a") == [principal("a")]
        nursery.cancel_scope.cancel()


async def test_a_miss_is_loaded_once_for_all_of_a_batch(autojump_clock: MockClock) -> None:
    async def load(key: str) -> Any:
        return principal(key) if key == "good" else ABSENT

    cache = TokenCache({}, load)
    async with tree(*cache.tree()) as system:
        for digest in ("bad", "good", "bad"):
            system.ref("authenticator").try_tell(Authenticate(digest))
        assert await system.ref("authenticator").ask(Authenticate("good")) == principal("good")
    loads = [message for message in cache.seen if isinstance(message, Load)]
    assert sorted(loads, key=lambda m: m.key) == [Load(TOKEN_VALIDATION, "bad"), Load(TOKEN_VALIDATION, "good")]


async def test_an_expired_token_is_invalid_from_the_cache_and_from_a_load(autojump_clock: MockClock) -> None:
    async def load(key: str) -> Any:
        return principal(key, expires_at=NOW)

    cache = TokenCache({"cached": principal("cached", expires_at=NOW)}, load)
    async with tree(*cache.tree()) as system:
        assert await authenticate(system, "cached", "loaded") == [Failure.INVALID_TOKEN] * 2


async def test_an_auth_service_that_fails_says_nothing_about_the_token(autojump_clock: MockClock) -> None:
    async def load(key: str) -> Any:
        raise OSError("connection refused")

    metrics = Metrics()
    async with tree(*TokenCache({}, load).tree(metrics)) as system:
        assert await authenticate(system, "a") == [Failure.UNAVAILABLE]
    assert counts(metrics, "weir_authentications_total") == {("unavailable",): 1}


async def test_the_token_goes_along_with_the_load_alone_and_shows_nowhere(autojump_clock: MockClock) -> None:
    cache = TokenCache({"hit": principal("hit")}, lambda key: answered(principal(key)))
    async with tree(*cache.tree()) as system:
        for digest in ("hit", "miss"):
            await system.ref("authenticator").ask(Authenticate(digest, b"hush"))
        lookups, load = cache.seen[:-1], cache.seen[-1]
        assert load.secret == b"hush"
        assert not [lookup for lookup in lookups if b"hush" in getattr(lookup, "keys", ())]
        assert "hush" not in repr((load, Authenticate("miss", b"hush"), system.snapshot()))


async def answered(value: Any) -> Any:
    return value


async def test_an_auth_service_that_is_away_is_not_logged_for_each_request(autojump_clock: MockClock) -> None:
    async def load(key: str) -> Any:
        raise AuthServiceAway("no answer")

    async with tree(*TokenCache({}, load).tree()) as system:
        with structlog.testing.capture_logs() as lines:
            assert await authenticate(system, "a", "b") == [Failure.UNAVAILABLE] * 2
        assert lines == []


async def test_a_load_that_hangs_is_unavailable_after_its_deadline(autojump_clock: MockClock) -> None:
    async with tree(*TokenCache({}, never).tree()) as system:
        with trio.fail_after(6.5):
            assert await authenticate(system, "a") == [Failure.UNAVAILABLE]


async def test_a_cache_manager_that_crashes_makes_it_unavailable_not_invalid(autojump_clock: MockClock) -> None:
    class Broken(Scripted):
        async def handle(self, message: Any) -> Any:
            raise RuntimeError("poison")

    authenticator = TokenCache({}, never).tree()[1]
    async with tree(child("cache_manager", partial(Broken, never, []), retry=False), authenticator) as system:
        assert await authenticate(system, "a") == [Failure.UNAVAILABLE]


async def test_a_crash_costs_callers_time_not_errors(autojump_clock: MockClock) -> None:
    async def load(key: str) -> Any:
        await trio.sleep(1)
        return principal(key)

    async with tree(*TokenCache({"hit": principal("hit")}, load).tree()) as system:
        async with trio.open_nursery() as nursery:
            results: list[Any] = []

            async def ask(digest: str) -> None:
                results.extend(await authenticate(system, digest))

            nursery.start_soon(ask, "miss")
            await trio.testing.wait_all_tasks_blocked()
            system.crash("authenticator")
            nursery.start_soon(ask, "hit")
        assert {p.digest for p in results} == {"miss", "hit"}
