"""What can be wrong with the settings of Redis. Imports no client library."""


class RedisUrlError(Exception):
    """`redis.url` names nothing that can be connected to. One line, without what may be a password."""

    def __init__(self, must: str) -> None:
        super().__init__(f"redis.url {must}")
