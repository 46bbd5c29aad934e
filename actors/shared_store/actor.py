"""The actor that watches the shared store: heartbeats, probes while it is away, a new epoch when it comes back.

Nobody asks it anything: the limiter and the cache read the `Standing` that it keeps. An engine that is away is no
crash: this actor starts, says so, and reaches for it until it is there.
"""

from typing import Any

import structlog
import trio

from actors.metrics import Metrics
from actors.runtime import Actor
from actors.shared_store.standing import Standing
from backends.ports.shared import Presence, SharedCache, SharedStoreAway

log = structlog.get_logger(__name__)


class SharedStore(Actor[None]):
    """Args: *every*: seconds between two heartbeats."""

    def __init__(
        self, presence: Presence, cache: SharedCache, standing: Standing, metrics: Metrics, *, every: float = 1.0
    ) -> None:
        self._presence = presence
        self._cache = cache
        self._standing = standing
        self._every = every
        self._announced = ""
        self._failures = metrics.counter("weir_shared_store_failed_heartbeats_total", "Heartbeats without an answer.")
        self._epochs = metrics.counter("weir_shared_store_epochs_total", "Times the shared cache was begun anew.")
        metrics.gauge(
            "weir_shared_store_up",
            "Whether the shared store is asked.",
            (),
            lambda: {(): float(standing.usable)},
            "min",
        )
        metrics.gauge(
            "weir_shared_store_instances",
            "Instances alive, as last known.",
            (),
            lambda: {(): float(standing.instances)},
            "max",
        )

    async def on_start(self) -> None:
        await self._beat()  # so that what starts after this finds the store, where it is there
        self.spawn(self._watch)

    async def on_stop(self) -> None:
        if self._standing.usable:
            await self._presence.leave()

    def describe(self) -> dict[str, Any]:
        standing = self._standing
        shown: dict[str, Any] = {"place": self._presence.place, "instances": standing.instances}
        if not standing.usable:
            shown["degraded"] = f"{self._presence.place} is away: {standing.reason}"
        return shown

    async def _watch(self) -> None:
        while True:
            await trio.sleep(self._standing.wait(self.clock(), self._every))
            await self._beat()

    async def _beat(self) -> None:
        standing = self._standing
        probing = not standing.usable
        if probing:
            standing.health.begin()
        try:
            # Only a probe takes whichever server it finds: what that one keeps is not believed before a new epoch.
            beat = await self._presence.beat(accept=probing)
            renew = standing.needs_epoch(beat, self.clock())
            if renew:
                await self._cache.renew()
        except SharedStoreAway as error:
            self._failures.inc()
            self._failed(error, probing)
            return
        if renew:
            self._epochs.inc()
        if standing.beaten(beat, renewed=renew):
            self._announced = ""
            log.info(
                "shared_store.joined",
                place=self._presence.place,
                after=standing.reason,
                instances=beat.instances,
                new_epoch=renew,
            )

    def _failed(self, error: SharedStoreAway, probing: bool) -> None:
        if probing:
            self._standing.probe_failed(error, self.clock())
        else:
            self._standing.failed(error, self.clock(), heartbeat=True)
        reason = self._standing.reason
        if not self._standing.usable and reason != self._announced:
            # Once for each reason, not for each probe.
            self._announced = reason
            log.warning("shared_store.away", place=self._presence.place, reason=reason)
