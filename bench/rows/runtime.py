"""The actor runtime by itself: messages, starts, memory, crashes. One core, a process a sample."""

from bench.peers.program import Program
from bench.registry import Row, Sample, Session


def row(name: str, what: str, unit: str, peers: tuple[str, ...], better: str = "higher") -> Row:
    """A row whose peers each have a piece of work of this *name*."""

    def measure(peer: Program, session: Session) -> Sample:
        return peer.measure(name, session)

    return Row(name, what, unit, peers, measure, better, layouts=("pinned",))


ASKED = ("actors", "pykka", "channels")
TOLD = ("actors", "channels")
ALONE = ("actors",)

ROWS = (
    row("ask-64", "64 askers at once, `def handle`", "asks/s", ASKED),
    row("ask-1", "one asker, one ask after the other", "asks/s", ("actors", "pykka")),
    row("ask-64-async", "64 askers at once, `async def handle`: by way of the mailbox", "asks/s", ASKED),
    row("ask-1-async", "one asker, the same", "asks/s", ("actors", "pykka")),
    row("ask-64-batch", "64 askers at once, `async def handle_batch`", "asks/s", ASKED),
    row("tell", "one sender, bounded mailbox: `await tell`; bare: send_nowait and receive", "messages/s", TOLD),
    row("try-tell", "the same with `try_tell`, which does not wait either", "messages/s", TOLD),
    row("start-idle", "start to ready of one idle child of 2,000", "µs", ALONE, "lower"),
    row("memory-idle", "memory of each of 10,000 idle children (RSS)", "KiB", ALONE, "lower"),
    row("crash-ready", "crash to ready, first = 0, siblings under load: median", "µs", ALONE, "lower"),
    row("crash-siblings", "p99 of asks to siblings while another crashes, over p99 without", "x", ALONE, "lower"),
    row("measured-64", "what metrics and traces add to an ask, 64 askers, `def handle`", "%", ALONE, "lower"),
    row("measured-64-async", "the same, `async def handle`", "%", ALONE, "lower"),
    row("measured-64-batch", "the same, `async def handle_batch`", "%", ALONE, "lower"),
)
