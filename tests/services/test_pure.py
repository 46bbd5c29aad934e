"""The pure parts of the services: merge patches, entity tags, times, cursors, pointers, refusals."""

import contextlib
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime import ActorCrashed, ActorRestarting, ActorStopped, AskTimeout, MailboxFull, Reject
from backends.ports.entities import Decision, Entity, Key, Refused, StoreUnavailable
from gateway.problem import FieldError, ProblemError
from gateway.services import answers, bodies
from gateway.services.conditional import etag, matches
from gateway.services.events import Cause
from gateway.services.failures import problem_for
from gateway.services.query import Query, make_cursor
from gateway.services.times import parse_time, rfc3339
from gateway.services.users import decisions
from gateway.services.users.model import UserInput

# RFC 7396, appendix A.
RFC_7396: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_the_examples_of_the_merge_patch_rfc(target: Any, patch: Any, result: Any) -> None:
    assert decisions.merge_patch(target, patch) == result


@given(VALUES, VALUES)
def test_a_merge_patch_applied_twice_is_applied_once(target: Any, patch: Any) -> None:
    before = msgspec.json.encode(target)
    once = decisions.merge_patch(target, patch)
    assert decisions.merge_patch(once, patch) == once
    assert msgspec.json.encode(target) == before, "the target is left alone"


CAUSE = Cause("alice", "r1", 1000.0, ("a", "b", "c"))
NOBODY = (None, None)
WRITES = st.lists(st.sampled_from(["create", "replace", "patch", "delete"]), max_size=12)


@given(WRITES)
def test_versions_only_rise_whatever_is_written(names: list[str]) -> None:
    """Against a store that holds one key: what is put is above all that was, and events say the same version."""
    current: Entity | None = None
    last = 0
    for name in names:
        write = {
            "create": decisions.create("u", UserInput("n", "a@b"), CAUSE),
            "replace": decisions.replace("u", UserInput("m", "a@b"), NOBODY, CAUSE),
            "patch": decisions.patch("u", {"bio": "x"}, NOBODY, CAUSE),
            "delete": decisions.delete("u", NOBODY, CAUSE),
        }[name]
        if name == "create" and current is not None:
            continue
        assert write.keys == (Key("user", "u"),)
        if name != "create" and current is None:
            with pytest.raises(Refused) as refused:
                write.decide([None], [last])
            assert refused.value.error == answers.Absent("user", "u")
            continue
        decision: Decision = write.decide([current], [0 if current else last])
        told = msgspec.json.decode(decision.events[0].data)
        assert told["previous"] == (msgspec.json.decode(current.body) if current else None)
        if decision.put:
            (current,) = decision.put
            assert current.version == told["version"] == last + 1
            assert msgspec.json.decode(current.body) == told["entity"]
        else:
            assert decision.remove == (Key("user", "u"),)
            current = None
            assert told["version"] == last + 1
        last = told["version"]


@pytest.mark.parametrize(
    ("header", "strong", "weak"),
    [
        (b'"3"', True, True),
        (b'W/"3"', False, True),
        (b'"1", W/"3"', False, True),
        (b'"1","3"', True, True),
        (b" * ", True, True),
        (b'"33"', False, False),
        (b"3", False, False),
        (b'""', False, False),
        (b'"a,"3"', False, False),
        (b"", False, False),
        (b'w/"3"', True, True),
    ],
)
def test_entity_tags(header: bytes, strong: bool, weak: bool) -> None:
    assert etag(3) == b'"3"'
    assert matches(header, 3, weak=False) is strong
    assert matches(header, 3, weak=True) is weak
    assert not matches(header, None, weak=True)


@given(st.floats(0, 4_000_000_000))
def test_times_come_back_not_later_than_they_were(at: float) -> None:
    shown = parse_time(rfc3339(at, "microseconds"))
    assert shown <= at + 1e-6
    assert at - shown < 2e-6
    assert len(rfc3339(at)) == len("2026-01-31T23:59:59.250Z")


@given(st.text(), st.integers(0, 10_000))
def test_cursors_come_back(text: str, number: int) -> None:
    cursor = make_cursor((text, number))
    assert cursor.replace("-", "a").replace("_", "a").isalnum()
    assert Query(f"cursor={cursor}".encode()).cursor(tuple[str, int]) == (text, number)


@given(st.binary(max_size=60))
def test_any_query_string_is_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(ProblemError):
        Query(raw).limit()


@given(st.binary(max_size=60))
def test_any_body_is_json_or_refused(raw: bytes) -> None:
    with contextlib.suppress(ProblemError):
        bodies.faults(bodies.parse_json(raw), UserInput)


class Inner(msgspec.Struct):
    b: int


class Nested(msgspec.Struct):
    inner: list[Inner]


def test_pointers_lead_into_nested_values() -> None:
    assert bodies.faults({"inner": [{"b": 1}, {"b": "x"}]}, Nested) == [
        FieldError("#/inner/1/b", "expected `int`, got `str`")
    ]


def test_every_refusal_is_mapped() -> None:
    samples: dict[type, tuple[Any, int]] = {
        answers.Absent: (answers.Absent("user", "x"), 404),
        answers.PreconditionFailed: (answers.PreconditionFailed(3), 412),
        answers.Invalid: (answers.Invalid((FieldError("#/a", "b"),)), 422),
        answers.KeyReused: (answers.KeyReused(), 422),
    }
    assert samples.keys() == set(typing.get_args(answers.Refusal))
    for refusal, status in samples.values():
        problem = problem_for(Reject(refusal))
        assert problem is not None
        assert problem.status == status
    assert answers.as_problem(answers.PreconditionFailed(None)).status == 412


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AskTimeout("x"), 504),
        (TimeoutError(), 504),
        (MailboxFull("x"), 503),
        (ActorCrashed("x"), 503),
        (ActorStopped("x"), 503),
        (ActorRestarting("x", 2.2), 503),
        (StoreUnavailable("x"), 503),
        (Reject(StoreUnavailable("x")), 503),
        (ProblemError(418, "x"), 418),
    ],
)
def test_what_the_tree_may_fail_with_is_mapped(error: Exception, status: int) -> None:
    problem = problem_for(error)
    assert problem is not None
    assert problem.status == status
    if isinstance(error, ActorRestarting):
        assert problem.headers == ((b"retry-after", b"3"),)


def test_what_nobody_foresaw_is_no_problem_of_ours() -> None:
    assert problem_for(RuntimeError()) is None
    assert problem_for(Reject(RuntimeError())) is None
