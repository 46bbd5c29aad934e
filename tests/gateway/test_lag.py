"""What /metrics says of work that is still to be done."""

import pytest

from actors.consumers.notification.messages import Backlog, Waiting
from actors.event_log.messages import Lag
from actors.metrics import Metrics
from actors.runtime import ActorRestarting
from gateway.admin.exposition import render
from gateway.admin.lag import LagGauge
from tests.gateway.support import FakeActor


@pytest.mark.parametrize("away", [False, True])
async def test_deliveries_that_are_not_made_yet_are_seen_though_nothing_lags(away: bool) -> None:
    metrics = Metrics()
    gauge = LagGauge(metrics)
    log = FakeActor(lambda message: {("notification", "entity.changed", 0): 0})
    deliveries = FakeActor(lambda message: Waiting(7, 12.5, {"working": 2, "held": 1}))
    await gauge.refresh({"event_log": log, "deliveries": deliveries}.__getitem__)
    assert (log.asked, deliveries.asked) == ([Lag()], [Backlog()])
    if away:  # the last number stays, and the log is asked all the same
        deliveries.answer = lambda message: ActorRestarting("away", 1.0)
        log.answer = lambda message: {("notification", "entity.changed", 0): 3}
        await gauge.refresh({"event_log": log, "deliveries": deliveries}.__getitem__)
    text = render(metrics).decode()
    assert "weir_deliveries_pending 7" in text
    assert "weir_deliveries_oldest_seconds 12.5" in text
    assert 'weir_delivery_endpoints{state="working"} 2' in text
    assert 'weir_delivery_endpoints{state="held"} 1' in text
    assert f'topic="entity.changed"}} {3.0 if away else 0.0}' in text
