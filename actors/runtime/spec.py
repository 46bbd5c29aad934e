"""The declaration of a tree: what to run, and how to treat it when it fails. Values only; nothing runs here.

The words are OTP's: child specification, strategy, intensity, permanent, transient, temporary.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

from actors.runtime.actor import Actor
from actors.runtime.backoff import Backoff
from actors.runtime.intensity import Intensity

Restart = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
OnCrash = Literal["fail", "retry_once"]
OnFull = Literal["wait", "reject", "drop_new", "drop_old"]


def _check(name: str, value: object, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}; got {value!r}")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A bounded mailbox of *capacity* messages.

    `on_full`: `wait` for room under the caller's cancel scope; `reject` the new message (`MailboxFull`);
    `drop_new` or `drop_old`: lose one to dead letters, its asker gets `MailboxFull`.
    """

    capacity: int
    on_full: OnFull = "wait"

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"a mailbox holds at least 1 message, got {self.capacity}")
        _check("on_full", self.on_full, OnFull)


@dataclass(frozen=True, slots=True)
class Child:
    """A worker of the tree. `factory` is called once an incarnation and returns an `Actor`.

    `start_timeout` and `shutdown` are seconds. `on_crash` says what becomes of the messages in hand when
    the actor crashes: `fail` their asks at once, or `retry_once` (for idempotent messages).
    """

    id: str
    factory: Callable[..., Actor[Any]]
    mailbox: Mailbox = field(kw_only=True)
    restart: Restart = field(default="permanent", kw_only=True)
    start_timeout: float = field(default=5.0, kw_only=True)
    shutdown: float = field(default=5.0, kw_only=True)
    on_crash: OnCrash = field(default="fail", kw_only=True)
    backoff: Backoff = field(default=Backoff(), kw_only=True)

    def __post_init__(self) -> None:
        _check("restart", self.restart, Restart)
        _check("on_crash", self.on_crash, OnCrash)
        if self.start_timeout <= 0 or self.shutdown <= 0:
            raise ValueError(f"{self.id}: start_timeout and shutdown must be above 0 seconds")


@dataclass(frozen=True, slots=True)
class Supervisor:
    """An inner node of the tree. More than `intensity` failures in `period` seconds: it gives up and
    its own supervisor decides; `intensity=None` never gives up.

    `children`, in start order: each a `Child`, `Supervisor`, `Pool` or `DynamicSupervisor`."""

    id: str
    strategy: Strategy = field(default="one_for_one", kw_only=True)
    intensity: int | None = field(default=3, kw_only=True)
    period: float = field(default=5.0, kw_only=True)
    children: Sequence[Any] = field(default=(), kw_only=True)
    restart: Restart = field(default="permanent", kw_only=True)
    backoff: Backoff = field(default=Backoff(), kw_only=True)

    def __post_init__(self) -> None:
        _check("strategy", self.strategy, Strategy)
        _check("restart", self.restart, Restart)
        Intensity(self.intensity, self.period)  # raises on numbers that make no window
        for child in self.children:
            if not isinstance(child, Spec):
                raise TypeError(f"{self.id}: {type(child).__name__} is no child of a supervisor")

    def walk(self) -> "Iterator[Spec]":
        """This node and all below it, each before its children, in start order."""
        yield self
        for child in self.children:
            if isinstance(child, Supervisor):
                yield from child.walk()
            else:
                yield child
                if isinstance(child, Pool):
                    yield from child.workers()


Route = Literal["round_robin", "least_queued", "hash"]
Budget = Literal["per_child", "shared"]


@dataclass(frozen=True, slots=True)
class Pool:
    """`size` workers, `<id>.1` and so on, behind one reference that gives each message to one of them.

    `route`: `round_robin`; `least_queued` (and in hand); `hash`: messages with the same `key(message)` go to
    the same worker, in this process. The first two avoid a worker that is not ready while another one is.
    The workers are restarted one by one, as under a Supervisor with this `intensity` and `period`.
    """

    id: str
    factory: Callable[[], Actor[Any]]
    size: int = field(kw_only=True)
    mailbox: Mailbox = field(kw_only=True)
    """Of each worker."""
    route: Route = field(default="round_robin", kw_only=True)
    key: Callable[[Any], Hashable] | None = field(default=None, kw_only=True)
    start_timeout: float = field(default=5.0, kw_only=True)
    shutdown: float = field(default=5.0, kw_only=True)
    on_crash: OnCrash = field(default="fail", kw_only=True)
    intensity: int | None = field(default=3, kw_only=True)
    period: float = field(default=5.0, kw_only=True)
    restart: Restart = field(default="permanent", kw_only=True)
    """Of the pool itself, when it has given up; its workers are permanent."""
    backoff: Backoff = field(default=Backoff(), kw_only=True)

    def __post_init__(self) -> None:
        _check("route", self.route, Route)
        if self.size < 1:
            raise ValueError(f"{self.id}: a pool has at least 1 worker, got {self.size}")
        if (self.route == "hash") != (self.key is not None):
            raise ValueError(f"{self.id}: the route `hash` needs a key, and only that one does")
        self.supervisor()

    def workers(self) -> "list[Child]":
        options: dict[str, Any] = {
            name: getattr(self, name) for name in ("mailbox", "start_timeout", "shutdown", "on_crash", "backoff")
        }
        return [Child(f"{self.id}.{number}", self.factory, **options) for number in range(1, self.size + 1)]

    def supervisor(self) -> Supervisor:
        """What supervises the workers."""
        options: dict[str, Any] = {name: getattr(self, name) for name in ("intensity", "period", "restart", "backoff")}
        return Supervisor(self.id, children=self.workers(), **options)


@dataclass(frozen=True, slots=True)
class DynamicSupervisor:
    """Children that come and go while the system runs: `system.dynamic(id).start_child(child_id, *args)`.

    `child` is a factory, called with those arguments for each incarnation, or a template `Child`, of which
    all but the id is taken. Its children are its own: when it is itself restarted, it starts with none.

    `budget`: with `per_child`, a child that fails more than `intensity` times in `period` seconds is given up
    alone; with `shared`, all failures count together and the supervisor gives up.
    """

    id: str
    child: "Child | Callable[..., Actor[Any]]"
    max_children: int = field(kw_only=True)
    budget: Budget = field(default="per_child", kw_only=True)
    mailbox: Mailbox | None = field(default=None, kw_only=True)
    """Of each child: required with a factory, and with a template its own."""
    intensity: int | None = field(default=3, kw_only=True)
    period: float = field(default=5.0, kw_only=True)
    restart: Restart = field(default="permanent", kw_only=True)
    """Of the supervisor itself."""
    backoff: Backoff = field(default=Backoff(), kw_only=True)

    def __post_init__(self) -> None:
        _check("budget", self.budget, Budget)
        if self.max_children < 1:
            raise ValueError(f"{self.id}: max_children must be at least 1, got {self.max_children}")
        if isinstance(self.child, Child) == (self.mailbox is not None):
            raise ValueError(f"{self.id}: give a template Child, or a factory and a mailbox")
        self.supervisor()

    def declare(self, id: str, args: tuple[Any, ...]) -> Child:
        """The declaration of one child."""
        if isinstance(self.child, Child):
            return replace(self.child, id=id, factory=partial(self.child.factory, *args))
        assert self.mailbox is not None
        return Child(id, partial(self.child, *args), mailbox=self.mailbox)

    def supervisor(self) -> Supervisor:
        """The supervisor that it begins as."""
        options: dict[str, Any] = {name: getattr(self, name) for name in ("intensity", "period", "restart", "backoff")}
        return Supervisor(self.id, **options)


Spec = Child | Supervisor | Pool | DynamicSupervisor
