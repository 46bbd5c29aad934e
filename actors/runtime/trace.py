"""The trace that code runs in: W3C Trace Context's two ids, carried along with every message.

An asker waits for its answer, so what the handler does belongs to the asker's trace: it runs in the same context.
A tell and a timer's tick begin something new: the handler runs in a trace of its own that names the sender's as
its `link`. (One trace for all would never end where actors tell themselves.) Who runs in no trace sends none.

Source: W3C Recommendation "Trace Context" (2021), `traceparent`; OpenTelemetry's specification, "Links between spans".
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: `trace_id` (128 bits), `span_id` (64 bits), neither of them 0.

    `link`: in a trace begun by a tell or a timer, where it was sent.
    """

    trace_id: int
    span_id: int
    sampled: bool = True
    link: Trace | None = None

    @classmethod
    def new(cls, *, sampled: bool = True, link: Trace | None = None) -> Trace:
        """The beginning of a trace. The ids are random, not secret."""
        return cls(random.getrandbits(128) or 1, random.getrandbits(64) or 1, sampled, link)

    @classmethod
    def parse(cls, traceparent: str) -> Trace | None:
        """From a `traceparent` header; None for one that is none: its receiver begins a new trace."""
        found = _TRACEPARENT.fullmatch(traceparent.strip())
        if found is None or (traceparent.strip().startswith("00") and found[4]):
            return None
        trace_id, span_id = int(found[1], 16), int(found[2], 16)
        return cls(trace_id, span_id, bool(int(found[3], 16) & _SAMPLED)) if trace_id and span_id else None

    def child(self) -> Trace:
        """A span of one's own below this one."""
        return Trace(self.trace_id, random.getrandbits(64) or 1, self.sampled)

    def linked(self) -> Trace:
        """A trace of its own that this one has led to. It keeps no more than one link alive."""
        here = self if self.link is None else Trace(self.trace_id, self.span_id, self.sampled)
        return Trace.new(sampled=self.sampled, link=here)

    @property
    def traceparent(self) -> str:
        """The header to send along."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


running_in: ContextVar[Trace | None] = ContextVar("actors.runtime.trace", default=None)


def current_trace() -> Trace | None:
    """The trace that the calling code runs in; None: in none."""
    return running_in.get()


@contextmanager
def use_trace(trace: Trace | None) -> Iterator[None]:
    """Run the body in *trace*: what it asks, tells and spawns carries it along."""
    before = running_in.set(trace)
    try:
        yield
    finally:
        running_in.reset(before)
