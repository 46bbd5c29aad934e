"""The runtime's histograms in `/metrics`."""

import trio
from trio.testing import MockClock

from actors.metrics import Metrics
from actors.runtime import Actor, Child, Mailbox, Supervisor, open_system
from composition.actor_metrics import expose
from gateway.admin.exposition import render
from gateway.admin.readings import read


class Sleeper(Actor[float]):
    async def handle(self, message: float) -> None:
        await trio.sleep(message)


async def test_a_scrape_shows_every_actor_as_it_is_now(autojump_clock: MockClock) -> None:
    metrics = Metrics()
    tree = Supervisor("root", children=[Child(id, Sleeper, mailbox=Mailbox(32)) for id in ("a", "b")])
    async with open_system(tree, metrics=True) as system:
        expose(metrics, system)
        for _ in range(80):
            await system.ref("a").tell(0.2)
        await trio.sleep(20)
        lines = render(read(metrics)).decode().splitlines()
    assert 'weir_actor_message_age_seconds_count{actor="a"} 80.0' in lines
    assert 'weir_actor_message_age_seconds_bucket{actor="a",le="0.1"} 0.0' in lines
    assert 'weir_actor_message_age_seconds_bucket{actor="a",le="0.25"} 80.0' in lines
    assert 'weir_actor_latency_seconds_bucket{actor="a",le="+Inf"} 80.0' in lines
    assert 'weir_actor_latency_seconds_bucket{actor="a",le="0.25"} 1.0' in lines
    (depths,) = [line for line in lines if line.startswith('weir_actor_mailbox_depth_count{actor="a"} ')]
    assert float(depths.split()[-1]) > 0
    assert 'weir_actor_latency_seconds_count{actor="b"} 0.0' in lines
