"""What can be wrong with Kafka, and which of it waiting can cure.

`StoreUnavailable` (of the ports): it is away; try again. `UnusableKafka`: the operator must do something first.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors

from backends.ports.engine import EngineUnusable
from backends.ports.entities import StoreUnavailable


class UnusableKafka(EngineUnusable):
    """One line: what is wrong, what was tried, the cure. Waiting does not help."""


_LOGIN = "refused the login to {what}; check kafka.username, kafka.password and kafka.sasl_mechanism"
_OLD = "is too old to {what}; Weir needs Kafka 2.4 or newer"
_UNUSABLE: dict[type[BaseException], str] = {
    errors.TopicAuthorizationFailedError: "no right to {what}; grant kafka.username Describe, DescribeConfigs, Create, "
    "Read and Write on Weir's topics",
    errors.GroupAuthorizationFailedError: "no right to {what}; grant kafka.username Describe and Read on Weir's groups",
    errors.ClusterAuthorizationFailedError: "no right to {what}; grant kafka.username Create on the cluster, or create "
    "Weir's topics beforehand",
    errors.AuthenticationFailedError: _LOGIN,
    errors.SaslAuthenticationFailed: _LOGIN,
    errors.UnsupportedSaslMechanismError: "does not take this mechanism to {what}; set kafka.sasl_mechanism to one "
    "that the broker has enabled",
    errors.IncompatibleBrokerVersion: _OLD,
    errors.UnsupportedVersionError: _OLD,
    errors.UnrecognizedBrokerVersion: _OLD,
    errors.PolicyViolationError: "has a policy: it will not {what}; create Weir's topics beforehand",
    errors.InvalidReplicationFactorError: "will not {what}: its default.replication.factor is above its number of "
    "brokers",
}


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """aiokafka's exceptions as ours. *what* was tried, after "to": `read audit`."""
    try:
        yield
    except (StoreUnavailable, UnusableKafka):
        raise
    except (errors.KafkaError, OSError) as error:
        raise translated(error, what) from error


def translated(error: BaseException, what: str) -> StoreUnavailable | UnusableKafka:
    """What *error* means to a user of the ports. What is not known to be hopeless may pass."""
    for kind, line in _UNUSABLE.items():
        if isinstance(error, kind):
            return UnusableKafka(f"Kafka: {line.format(what=what)}")
    return StoreUnavailable(f"Kafka did not {what}: {reason(error)}")


def reason(error: BaseException) -> str:
    """*error* in a few words; some of aiokafka's have none of their own."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


class ConsumerStuck(Exception):
    """The client reads nothing more though there is something to read, or never gets its partitions: aiokafka's
    consumers do that after some restarts of a broker. Only a new one helps, so its actor is to crash."""
