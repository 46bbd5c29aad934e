"""Topics, their settings and groups' offsets, by the admin client. asyncio's side of the bridge."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from backends.kafka.aio import retrying, stop_admin
from backends.kafka.connection import Connection
from backends.kafka.errors import UnusableKafka, engine_errors
from backends.ports.event_log import Topic
from backends.ports.events import Partition
from backends.ports.groups import Commit

log = structlog.get_logger(__name__)
T = TypeVar("T")

_RETENTION = "retention.ms"
_SET_ON_TOPIC = 1
"""The source of a setting that stands on the topic itself (DescribeConfigs: DYNAMIC_TOPIC_CONFIG)."""

_BROKER_DEFAULT = -1
_STOP_S = 1.0


class Topics:
    """Args:
    timeout: seconds for one operation, connecting included.
    """

    def __init__(self, connection: Connection, *, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._admin: AIOKafkaAdminClient | None = None
        self._starting = asyncio.Lock()

    async def sizes(self) -> dict[str, int]:
        """Every topic that is not Kafka's own, with its number of partitions."""
        described = await self._do("list the topics", lambda admin: admin.describe_topics())
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in described
            if not topic.get("is_internal") and topic["partitions"]
        }

    async def retentions(self, names: Sequence[str]) -> dict[str, float | None]:
        """Seconds; None for ever."""
        settings = await self._settings(names)
        found = {}
        for name, of_topic in settings.items():
            milliseconds = int(of_topic[_RETENTION][0])
            found[name] = None if milliseconds < 0 else milliseconds / 1000
        return found

    async def create(self, topics: Sequence[Topic]) -> None:
        """Create them; one that another process created in the meantime is fine. The cluster replicates them as
        it does by default."""
        wanted = [_new(topic) for topic in topics]
        what = f"create {', '.join(topic.name for topic in topics)}"
        response = await self._do(what, lambda admin: admin.create_topics(wanted))
        with engine_errors(what):
            for name, code, *message in response.topic_errors:
                error = for_code(code)
                if error not in (NoError, TopicAlreadyExistsError):
                    raise error(f"{name}: {message[0] if message and message[0] else error.__name__}")

    async def retain(self, topic: Topic) -> None:
        """Set the topic's retention, and leave its other settings as they are. Without the right to, it stays."""
        settings = (await self._settings([topic.name]))[topic.name]
        value, _ = settings[_RETENTION]
        if value == _retention_ms(topic):
            return
        # This request replaces all that stands on the topic, so what others put there goes along.
        own = {key: value for key, (value, source) in settings.items() if source == _SET_ON_TOPIC}
        resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, {**own, _RETENTION: _retention_ms(topic)})
        try:
            responses = await self._do(f"change {topic.name}", lambda admin: admin.alter_configs([resource]))
            with engine_errors(f"change {topic.name}"):
                for code, message, *_ in responses[0].resources:
                    if code:
                        raise for_code(code)(message or "")
        except UnusableKafka as error:
            log.warning("kafka.retention_not_set", topic=topic.name, stays=value, problem=str(error))

    async def groups(self) -> list[str]:
        found = await self._do("list the groups", lambda admin: admin.list_consumer_groups())
        return sorted(group for group, *_ in found)

    async def committed(self, group: str, partitions: Sequence[Partition] | None = None) -> dict[Partition, int]:
        """The offsets that *group* committed, of all partitions with None."""
        return {p: at.offset for p, at in (await self.progress(group, partitions)).items()}

    async def progress(self, group: str, partitions: Sequence[Partition] | None = None) -> dict[Partition, Commit]:
        """As `committed`, each with the metadata beside it."""
        asked = None if partitions is None else list(partitions)
        found: Mapping[Any, Any] = await self._do(
            f"read the offsets of group {group}",
            lambda admin: admin.list_consumer_group_offsets(group, partitions=asked),
        )
        return {(p.topic, p.partition): Commit(at.offset, at.metadata) for p, at in found.items() if at.offset >= 0}

    async def aclose(self) -> None:
        if self._admin is not None:
            admin, self._admin = self._admin, None
            await stop_admin(admin, _STOP_S)

    async def _settings(self, names: Sequence[str]) -> dict[str, dict[str, tuple[str, int]]]:
        """By topic and key: the value, and where it comes from."""
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        if not asked:
            return {}
        what = f"read the settings of {', '.join(names)}"
        responses = await self._do(what, lambda admin: admin.describe_configs(asked))
        found = {}
        with engine_errors(what):
            for code, message, _, name, entries in (row for response in responses for row in response.resources):
                if code:
                    raise for_code(code)(message or "")
                found[name] = {key: (value, source) for key, value, _, source, *_ in entries}
        return found

    async def _do(self, what: str, operation: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
        with engine_errors(what):
            try:
                async with asyncio.timeout(self._timeout):
                    admin = await self._started()
                    return await retrying(lambda: operation(admin))
            except BaseException:
                # Whatever it was, the next operation starts with a connection that is known to be whole.
                await self.aclose()
                raise

    async def _started(self) -> AIOKafkaAdminClient:
        async with self._starting:
            if self._admin is None:
                admin = AIOKafkaAdminClient(**self._connection.options())
                try:
                    await admin.start()
                except BaseException:
                    await stop_admin(admin, 0.0)
                    raise
                self._admin = admin
            return self._admin


def _new(topic: Topic) -> NewTopic:
    new = NewTopic(topic.name, topic.partitions, 1, topic_configs={_RETENTION: _retention_ms(topic)})
    new.replication_factor = _BROKER_DEFAULT  # which its constructor does not take
    return new


def _retention_ms(topic: Topic) -> str:
    return "-1" if topic.retention_s is None else str(int(topic.retention_s * 1000))
