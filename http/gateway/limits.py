"""Which buckets a request is charged to. Pure: names and keys; the rate limiter knows the numbers."""

from collections.abc import Sequence

from actors.rate_limiter.messages import Limit, Verdict

Buckets = tuple[tuple[str, str], ...]


class LimitPlan:
    """The configured limits, by when they can be checked. Raises ValueError for a key it does not know."""

    def __init__(self, limits: Sequence[Limit] = ()) -> None:
        for limit in limits:
            if limit.key not in ("token", "address", "subject"):
                raise ValueError(f"limit {limit.name!r}: key must be token, address or subject, got {limit.key!r}")
        self._before = tuple((limit.name, limit.key == "token") for limit in limits if limit.key != "subject")
        self._subject = tuple(limit.name for limit in limits if limit.key == "subject")

    def before_authentication(self, address: str, digest: str | None) -> Buckets:
        """The buckets of a caller nobody knows yet.

        Args:
            address: the caller's, as `address.limit_key` gives it.
            digest: of the token sent, valid or not; None without one, and then token limits count by address.
        """
        by_address = f"address:{address}"
        by_token = by_address if digest is None else f"token:{digest}"
        return tuple((name, by_token if token else by_address) for name, token in self._before)

    def after_authentication(self, subject: str) -> Buckets:
        return tuple((name, f"subject:{subject}") for name in self._subject)


def together(first: Verdict | None, second: Verdict) -> Verdict:
    """The verdict of both checks of one request. A second check happens only after the first admitted."""
    if first is None:
        return second
    return Verdict(second.retry_after_s, second.violated, first.states + second.states)
