"""Tests of handlers without a broker, in virtual time: `consuming` runs one as it would run in the tree."""

from actors.consumers.testing.harness import Consuming, consuming
from actors.consumers.testing.log import MemoryEventLog

__all__ = ["Consuming", "MemoryEventLog", "consuming"]
