"""The event side by itself: the embedded log, and consumer groups on it and on Kafka. Run by name, or with `all`."""

from bench.peers.program import Program
from bench.registry import Row, Sample, Session


def row(name: str, what: str, peers: tuple[str, ...], unit: str = "events/s") -> Row:
    """A row whose peers each have a piece of work of this *name*."""

    def measure(peer: Program, session: Session) -> Sample:
        return peer.measure(name, session)

    return Row(name, what, unit, peers, measure, default=False, layouts=("pinned",))


EMBEDDED = ("weir-log",)

ROWS = (
    row("log-publish", "embedded log: 64 publishers, each event durable before the next", EMBEDDED),
    row("log-consume", "embedded log: into the audit trail, with checkpoints", EMBEDDED),
    row("search-index", "embedded log: users into the search index", EMBEDDED, "documents/s"),
    row("kafka-consume", "a no-op for each record, then it counts as done", ("weir-kafka", "aiokafka", "faststream")),
    row("kafka-consume-batch", "the same, batches handed over", ("weir-kafka", "aiokafka")),
    row("kafka-audit", "Kafka into PostgreSQL's audit trail, one process", ("weir-kafka",)),
)
