"""The `authenticator` actor: token digests in, principals out, on the cache manager's `token_validation` entries.

It knows no token and no Auth Service: a miss is loaded by the cache manager, whose loader asks whichever
Auth Service is configured. Negative answers live in a store of their own there, so random tokens evict nobody.
"""

from collections.abc import Callable
from typing import Any

import structlog
import trio

from actors.authenticator.messages import Authenticate, Failure, NotValidated, Principal
from actors.cache_manager.messages import MISS, TOKEN_VALIDATION, GetMany, Load
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, Later, Reject

log = structlog.get_logger(__name__)

Answer = Principal | Failure


class Authenticator(Actor[Authenticate]):
    """Answers `Authenticate` with a `Principal` or a `Failure`; never rejects. Safe under `retry_once`.

    *wall_clock*: Unix seconds, for the tokens' expiry. *load_timeout*: seconds that the validation of a token
    that is not in the cache may take; it should be above the cache manager's own deadline for a load.
    """

    def __init__(
        self,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        *,
        load_timeout: float = 6.0,
        cache: str = "cache_manager",
    ) -> None:
        self._wall_clock = wall_clock
        self._load_timeout = load_timeout
        self._cache = cache
        self._outcomes = metrics.counter(
            "weir_authentications_total", "Token validations by outcome (ok, invalid_token, unavailable).", ("outcome",)
        )

    def handle_batch(self, messages: list[Authenticate]) -> list[Any]:
        digests = tuple(dict.fromkeys(message.digest for message in messages))
        try:
            found = self.lookup(self._cache).ask_now(GetMany(TOKEN_VALIDATION, digests))
        except trio.WouldBlock:
            found = [MISS] * len(digests)  # a load begins with another look
        cached = dict(zip(digests, found, strict=True))
        waiting: dict[Authenticate, list[Later]] = {}
        now = self._wall_clock()
        answers: list[Any] = []
        for message in messages:
            value = cached[message.digest]
            if value is MISS:
                later = self.later()
                waiting.setdefault(message, []).append(later)  # messages are equal by their digest
                answers.append(later)
            else:
                answers.append(self._counted(judge(value, now)))
        for message, laters in waiting.items():
            self.spawn(self._load, message, laters)
        return answers

    async def _load(self, message: Authenticate, laters: list[Later]) -> None:
        """Answer all who wait for one token. Whatever goes wrong says nothing about the token: unavailable."""
        answer: Answer
        load = Load(TOKEN_VALIDATION, message.digest, message.token)
        try:
            value = await self.lookup(self._cache).ask(load, timeout=self._load_timeout)
        except ActorError as error:
            if not (isinstance(error, Reject) and isinstance(error.error, NotValidated)):
                log.warning("a token could not be validated", error=repr(error))
            answer = Failure.UNAVAILABLE
        else:
            answer = judge(value, self._wall_clock())
        for later in laters:
            later.answer(self._counted(answer))

    def _counted(self, answer: Answer) -> Answer:
        self._outcomes.inc(answer.value if isinstance(answer, Failure) else "ok")
        return answer


def judge(cached: object, now: float) -> Answer:
    """What a cached validation is worth at *now* (Unix seconds): an entry may outlive its token by its jitter."""
    if isinstance(cached, Principal) and cached.expires_at > now:
        return cached
    return Failure.INVALID_TOKEN
