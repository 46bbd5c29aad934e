"""The operator's way in: the running server's operations, or our own on the store while no server runs."""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from actors.consumers.notification.dormant import DormantDeliveries
from actors.event_log.actor import EventLogActor
from actors.metrics import Metrics
from actors.runtime import Child, Mailbox, Supervisor, open_system
from actors.storage.scans import StorageScans
from actors.storage.writer import StorageWriter
from composition import values
from composition.apps import operations
from composition.audit_key import AuditKeyFile
from composition.engines import made_engine, opened_engines
from composition.listening import control_socket
from gateway.admin.operations import Caller
from gateway.admin.remote import RemoteOperations
from gateway.logging import configure_logging
from settings import Settings


@asynccontextmanager
async def open_operations(settings: Settings) -> AsyncIterator[Caller]:
    """The running server's operations through its socket; without a server, our own on the opened store."""
    if control_socket(settings).exists():
        async with RemoteOperations(control_socket(settings)) as remote:
            if await remote.alive():
                yield remote
                return
    configure_logging("error", "auto", sys.stderr)
    with made_engine(settings) as engine:
        metrics, box = Metrics(), Mailbox(1024)
        log_of = partial(EventLogActor, engine.event_log(), values.topics(settings), metrics)
        offline = Supervisor("root", children=[
            Child("storage", partial(StorageWriter, engine.entities(), metrics), mailbox=box),
            Child("storage_scans", partial(StorageScans, engine.entities(), metrics), mailbox=box),
            Child("event_log", log_of, mailbox=box),
            Child("deliveries", partial(DormantDeliveries, engine.deliveries(), time.time), mailbox=box),
        ])  # fmt: skip
        audit, search, key = engine.audit(), engine.search(), AuditKeyFile(settings.data.dir)
        async with opened_engines(engine), open_system(offline) as system:
            yield operations(system.ref, settings, audit, search, key, cached=False)
