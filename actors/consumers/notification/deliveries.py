"""The actor that sees to it that what is due is worked off: it puts endpoints to work, each an actor of its own."""

import time
from collections.abc import Callable
from random import Random
from typing import Any

import structlog

from actors.consumers.notification.messages import Backlog, Reset, Rested, Waiting, Wake, Work
from actors.consumers.retry import DEFAULT_POLICY, RetryPolicy
from actors.runtime import Actor, ActorError, Reject, Timer
from backends.ports.entities import StoreUnavailable
from backends.ports.stores import DeliveryStore

log = structlog.get_logger(__name__)

AT_ONCE = 256
"""Endpoints put to work in one step."""


class Deliveries(Actor[Wake | Rested | Reset | Backlog]):
    """Starts an actor `delivery:ENDPOINT` under the dynamic supervisor *supervisor* for an endpoint that has something
    due, and stops it when it has rested for *linger* seconds.

    Args:
        now: wall clock, Unix seconds: due times outlive the process.
    """

    def __init__(
        self,
        store: DeliveryStore,
        *,
        policy: RetryPolicy = DEFAULT_POLICY,
        linger: float = 60.0,
        supervisor: str = "endpoints",
        now: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._linger = linger
        self._supervisor = supervisor
        self._now = now
        self._rng = rng or Random()
        self._working: set[str] = set()
        self._resting: dict[str, float] = {}
        """Endpoints whose actors wait for something to do, and since when (`clock`). The oldest first."""
        self._held: dict[str, float] = {}
        """Endpoints that asked for a pause, and until when."""
        self._oldest: float | None = None
        """Since when the delivery has been pending that has been so longest, when it was last asked for."""
        self._outages = 0
        self._timer: Timer | None = None

    async def on_start(self) -> None:
        # An actor that an earlier incarnation put to work may still be at it; told to work, it says when it rests.
        for id in self.dynamic(self._supervisor).children():
            self._resting[id.removeprefix(PREFIX)] = self.clock()
        # Nothing is looked up here: a store that is away is no start failure.
        self.ref.try_tell(Wake())

    async def handle_batch(self, messages: list[Wake | Rested | Reset | Backlog]) -> list[Any]:
        results = [await self._answer(message) for message in messages]
        await self._dispatch()
        return results

    def describe(self) -> dict[str, Any]:
        return {**self._endpoints(), "oldest_s": round(self._age(self._oldest), 3)}

    def _endpoints(self) -> dict[str, int]:
        resting = self._resting.keys() - self._held.keys()
        return {"working": len(self._working), "held": len(self._held), "resting": len(resting)}

    def _age(self, since: float | None) -> float:
        return 0.0 if since is None else max(0.0, self._now() - since)

    async def _answer(self, message: Wake | Rested | Reset | Backlog) -> Waiting | bool | Reject | None:
        try:
            match message:
                case Rested(endpoint, until):
                    self._rested(endpoint, until)
                case Backlog():
                    self._oldest = await self._store.oldest()
                    return Waiting(await self._store.pending(), self._age(self._oldest), self._endpoints())
                case Reset(id):
                    return await self._store.reset(id, self._now())
        except StoreUnavailable as error:
            return Reject(error)
        return None

    def _rested(self, endpoint: str, until: float) -> None:
        self._working.discard(endpoint)
        self._resting.pop(endpoint, None)
        self._resting[endpoint] = self.clock()
        if until > self._now():
            self._held[endpoint] = until

    async def _dispatch(self) -> None:
        """Put to work who has something due; set the timer for what is due next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._now()
        self._held = {endpoint: until for endpoint, until in self._held.items() if until > now}
        try:
            for endpoint in await self._store.endpoints(now, AT_ONCE, self._excluded()):
                self._put_to_work(endpoint)
            due = await self._store.next_due(self._excluded())
        except StoreUnavailable as error:
            self._outages += 1
            log.warning("deliveries.store_away", error=str(error))
            self._timer = self.timer(self._policy.delay(self._outages, self._rng.random()), Wake())
            return
        self._outages = 0
        self._send_home()
        waits = [time - now for time in (due, *self._held.values()) if time is not None]
        if self._resting:
            since = next(iter(self._resting.values()))
            # Not to the last digit: a wait that rounds to nothing would be waited for ever.
            waits.append(max(0.01, since + self._linger - self.clock()))
        if waits:
            self._timer = self.timer(max(0.0, min(waits)), Wake())

    def _excluded(self) -> list[str]:
        return sorted(self._working | self._held.keys())

    def _put_to_work(self, endpoint: str) -> None:
        self._working.add(endpoint)
        if self._resting.pop(endpoint, None) is None:
            self.spawn(self._start, endpoint)
        else:
            self.lookup(actor_of(endpoint)).try_tell(Work())

    async def _start(self, endpoint: str) -> None:
        """Start the endpoint's actor; it begins by itself."""
        try:
            await self.dynamic(self._supervisor).start_child(actor_of(endpoint), endpoint)
        except (ActorError, ValueError) as error:
            log.warning("deliveries.endpoint_not_started", endpoint=endpoint, error=repr(error))
            # Too many of them, or a supervisor that is down: others come first.
            self._held[endpoint] = self._now() + self._policy.delay(1, self._rng.random())
            self._working.discard(endpoint)
            self.ref.try_tell(Wake())

    def _send_home(self) -> None:
        for endpoint, since in list(self._resting.items()):
            if self.clock() - since < self._linger:
                break
            del self._resting[endpoint]
            self._working.add(endpoint)  # until it is gone: nobody must tell it anything now
            self.spawn(self._stop, endpoint)

    async def _stop(self, endpoint: str) -> None:
        try:
            await self.dynamic(self._supervisor).stop_child(actor_of(endpoint))
        except (ActorError, LookupError):
            pass  # gone already
        self._working.discard(endpoint)
        self.ref.try_tell(Wake())


PREFIX = "delivery:"


def actor_of(endpoint: str) -> str:
    """The id of the endpoint's actor."""
    return PREFIX + endpoint
