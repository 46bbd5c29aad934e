"""The ASGI lifespan protocol, fenced: an app that knows nothing of it, returns early or raises harms nobody.

Source: ASGI specification, "Lifespan Protocol" 2.0.
"""

from typing import Any

import structlog
import trio

from gateway.asgi_types import App, Message

log = structlog.get_logger(__name__)


class LifespanError(Exception):
    """The app said `lifespan.startup.failed`, or said nothing in time. Names the app."""


class Lifespan:
    """One app's lifespan. `state` is what the app put into the scope's state; each request gets a copy.

    Args:
        startup_timeout, shutdown_timeout: seconds the app has for each.
    """

    def __init__(
        self,
        app: App,
        name: str,
        state: dict[str, Any],
        *,
        startup_timeout: float = 10.0,
        shutdown_timeout: float = 5.0,
    ) -> None:
        self.state = state
        self._app = app
        self._name = name
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._send, self._receive = trio.open_memory_channel[Message](2)
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._failure = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the app, say `started`, and stay until cancelled; then let the app shut down, in its time.

        Raises LifespanError when it does not start, and what the app raises once it has started. An app
        that returns or raises before that has no lifespan, which is fine. Use once.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_app)
            try:
                await self._start()
                task_status.started()
                await trio.sleep_forever()
            finally:
                await self._stop()

    async def _run_app(self) -> None:
        # Shielded: it ends by the protocol, when `_stop` has asked it to, not with the nursery around it.
        with self._scope:
            try:
                scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
                await self._app(scope, self._receive.receive, self._on_message)
            except Exception:
                if self._started.is_set():
                    raise
                log.info("the app has no lifespan", app=self._name)
            finally:
                self._started.set()
                self._stopped.set()

    async def _start(self) -> None:
        self._send.send_nowait({"type": "lifespan.startup"})
        with trio.move_on_after(self._startup_timeout) as timeout:
            await self._started.wait()
        if timeout.cancelled_caught:
            raise LifespanError(f"{self._name} did not start within {self._startup_timeout:g} s")
        if self._failure:
            raise LifespanError(f"{self._name} did not start: {self._failure}")

    async def _stop(self) -> None:
        with trio.move_on_after(self._shutdown_timeout, shield=True) as timeout:
            if not self._stopped.is_set() and not self._failure:
                self._send.send_nowait({"type": "lifespan.shutdown"})
                await self._stopped.wait()
        if timeout.cancelled_caught:
            log.warning("an app did not shut down in time", app=self._name, seconds=self._shutdown_timeout)
        self._scope.cancel()

    async def _on_message(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self._failure = message.get("message", "") or "it gave no reason"
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.shutdown.failed":
                log.warning("an app failed to shut down", app=self._name, reason=message.get("message", ""))
                self._stopped.set()
            case other:
                raise ValueError(f"{other!r} is no message of the lifespan protocol")
        await trio.lowlevel.checkpoint()
