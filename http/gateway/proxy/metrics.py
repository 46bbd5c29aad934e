"""What `/metrics` tells of the upstreams."""

from typing import Literal

from actors.metrics import Metrics

Outcome = Literal["answered", "failed", "timed_out", "refused", "abandoned"]
"""Of one try. Answered: in HTTP, whatever the status. Refused: by us, as it has enough in hand. Abandoned: its client
left, or the request's deadline passed."""


class UpstreamMetrics:
    def __init__(self, metrics: Metrics) -> None:
        self.requests = metrics.counter(
            "weir_upstream_requests_total", "Tries of requests to upstreams.", ("upstream", "outcome")
        )
        self.ejections = metrics.counter(
            "weir_upstream_ejections_total", "How often an upstream was left alone for a while.", ("upstream",)
        )
