"""A verdict as `RateLimit-Policy`, `RateLimit` and `Retry-After`. Pure.

Source: draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651).
"""

from actors.rate_limiter.messages import LimitState, Verdict

POLICY = b"ratelimit-policy"
STATE = b"ratelimit"
RETRY_AFTER = b"retry-after"


class RateLimitHeaders:
    """Writes the headers; remembers what a limit's constants look like on the wire."""

    def __init__(self) -> None:
        self._constants: dict[tuple[str, int, int], tuple[str, str]] = {}
        self._policies: dict[tuple[str, ...], bytes] = {}

    def build(self, verdict: Verdict) -> list[tuple[bytes, bytes]]:
        """The headers of an answer: none when no limit applied, `retry-after` only when refused."""
        states = verdict.states
        if not states:
            return []
        constants = [self._of(state) for state in states]
        key = tuple(policy for _, policy in constants)
        policy = self._policies.get(key)
        if policy is None:
            policy = self._policies[key] = ", ".join(key).encode()
        refused = verdict.retry_after_s
        items = []
        for (name, _), state in zip(constants, states, strict=True):
            reset = state.reset_s
            if refused and state.name in verdict.violated:
                # Retry-After should not point to an earlier time than `t`: here the quota that counts is
                # the next request's, not the full bucket's.
                reset = min(reset, refused)
            items.append(f"{name};r={state.remaining};t={reset}")
        headers = [(POLICY, policy), (STATE, ", ".join(items).encode())]
        if refused:
            headers.append((RETRY_AFTER, b"%d" % refused))
        return headers

    def _of(self, state: LimitState) -> tuple[str, str]:
        key = (state.name, state.quota, state.window_s)
        known = self._constants.get(key)
        if known is None:
            name = quoted(state.name)
            known = self._constants[key] = (name, f"{name};q={state.quota};w={state.window_s}")
        return known


def quoted(text: str) -> str:
    """*text* as a structured-field String (RFC 9651 §3.3.3). ValueError beyond printable ASCII."""
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"a limit's name must be printable ASCII, got {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
