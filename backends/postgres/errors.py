"""Which of PostgreSQL's errors mean what: wait, give up, or a mistake of ours. Pure, but for asyncpg's classes.

EngineUnusable           waiting cures nothing; the message names the setting and the cure
  UnusablePostgres       of `postgres.dsn`
    NewerSchema          a newer Weir wrote it
StoreUnavailable         away, overloaded or in trouble for now; trying again may help
"""

import asyncio

import asyncpg

from backends.ports.engine import EngineUnusable
from backends.ports.entities import StoreUnavailable


class UnusablePostgres(EngineUnusable):
    def __init__(self, place: str, problem: str, cure: str) -> None:
        super().__init__(f"postgres.dsn ({place}): {problem}; {cure}")


class NewerSchema(UnusablePostgres):
    def __init__(self, place: str, found: int, known: int) -> None:
        super().__init__(
            place,
            f"its schema is version {found} and this Weir knows up to {known}",
            "run the Weir that wrote it, or a newer one, or restore a backup",
        )


_E = asyncpg.exceptions

_REFUSED: tuple[tuple[type[Exception], str], ...] = (
    (_E.InvalidPasswordError, "correct the user or the password"),
    (_E.InvalidAuthorizationSpecificationError, "correct the user, or let it in with pg_hba.conf"),
    (_E.InvalidCatalogNameError, "create the database, or name another one"),
    (_E.ClientConfigurationError, "correct the DSN"),
    (_E.InsufficientPrivilegeError, "make its user the owner of the database, or grant it CREATE on it"),
)
"""What a server answers to those whom it will not serve, however often they come."""

_FOR_NOW: tuple[type[Exception], ...] = (
    _E.PostgresConnectionError,
    _E.OperatorInterventionError,  # shut down, starting up, a statement's time is over
    _E.InsufficientResourcesError,
    _E.PostgresSystemError,
    _E.TransactionRollbackError,
    _E.LockNotAvailableError,
    _E.ReadOnlySQLTransactionError,  # a primary that became a standby: reconnecting finds the new one
    _E.IdleInTransactionSessionTimeoutError,
    _E.TargetServerAttributeNotMatched,
    _E.InterfaceError,  # the connection was closed under our hands
    OSError,
    EOFError,
    asyncio.TimeoutError,
)


def refusal(place: str, error: Exception) -> UnusablePostgres | None:
    """*error*, met on connecting, as what no waiting cures; None when waiting may."""
    for kind, cure in _REFUSED:
        if isinstance(error, kind):
            return UnusablePostgres(place, described(error), cure)
    return None


def unavailable(place: str, error: Exception) -> StoreUnavailable | None:
    """*error* as the engine's trouble; None for a mistake in what was asked of it."""
    if isinstance(error, _E.DataError):  # asyncpg's own: a parameter it could not encode
        return None
    if isinstance(error, _FOR_NOW) or refusal(place, error) is not None:
        return StoreUnavailable(f"postgres.dsn ({place}): {described(error)}")
    return None


def breaks_connection(error: Exception) -> bool:
    """Whether the session is over, or is better over: so are the others to that server, probably."""
    return not isinstance(error, _E.DataError) and isinstance(
        error,
        _E.PostgresConnectionError
        | _E.AdminShutdownError
        | _E.CrashShutdownError
        | _E.CannotConnectNowError
        | _E.ReadOnlySQLTransactionError
        | _E.InterfaceError
        | OSError
        | EOFError,
    )


def is_conflict(error: Exception) -> bool:
    """Whether the transaction lost against another and may simply be done again."""
    return isinstance(error, _E.TransactionRollbackError)


def described(error: Exception) -> str:
    """One line that says what happened, also where the exception does not."""
    text = " ".join(str(error).split())
    if isinstance(error, asyncio.TimeoutError):
        return text or "no answer in time"
    return text or type(error).__name__
