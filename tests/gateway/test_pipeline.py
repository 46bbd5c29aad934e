"""The stages in their order, and what each of them answers."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.authenticator.messages import Failure
from actors.rate_limiter.messages import Check
from actors.runtime import ActorCrashed, ActorRestarting, ActorStopped, AskTimeout, MailboxFull, Reject
from backends.ports.entities import StoreUnavailable
from backends.ports.limits import LimitsUnavailable
from gateway.limits import LimitPlan
from gateway.problem import ProblemError
from gateway.request import Response
from tests.gateway.support import ALICE, APP_ORIGIN, World, admitted, headers_of, problem_of, refused, request

BEARER = b'Bearer realm="weir"'


async def hang(message: Any) -> None:
    await trio.sleep_forever()


async def test_an_admitted_authenticated_request_reaches_its_target() -> None:
    world = World()
    answer = await world.get("/users/7")
    assert (answer.status, answer.body) == (200, b"{}")
    assert world.target.seen[0].principal == ALICE
    assert headers_of(answer)[b"x-request-id"] == b"req-1"
    assert world.count("/users", 200) == 1


# Limits.


async def test_limits_come_before_authentication_and_count_by_address_and_token() -> None:
    world = World()
    await world.get("/users/7")
    before, after = world.limiter.asked
    assert before == Check((("caller", f"token:{ALICE.digest}"), ("address", "address:192.0.2.1")))
    assert after == Check((("subject", "subject:alice"),))


async def test_without_a_token_the_token_limit_counts_by_address() -> None:
    world = World()
    await world.get("/users/7", None)
    assert world.limiter.asked == [Check((("caller", "address:192.0.2.1"), ("address", "address:192.0.2.1")))]


async def test_over_a_limit_nobody_is_asked_who_it_is() -> None:
    world = World()
    world.limiter.answer = refused
    answer = await world.get("/users/7")
    body, headers = problem_of(answer), headers_of(answer)
    assert answer.status == 429
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["violated-policies"] == ["caller"]
    assert headers[b"retry-after"] == b"7"
    assert headers[b"ratelimit-policy"] == b'"caller";q=600;w=60, "address";q=600;w=60'
    assert headers[b"ratelimit"].startswith(b'"caller";r=0;t=7')
    assert world.authenticator.asked == world.target.seen == []


async def test_over_a_subject_limit_the_answer_tells_of_all_limits() -> None:
    world = World()
    world.limiter.answer = lambda check: (refused if check.buckets[0][0] == "subject" else admitted)(check)
    answer = await world.get("/users/7")
    assert answer.status == 429
    assert problem_of(answer)["violated-policies"] == ["subject"]
    assert headers_of(answer)[b"ratelimit"].count(b";r=") == 3


@pytest.mark.parametrize("path", ["/users/7", "/nowhere", "/open"])
@pytest.mark.parametrize("token", ["good", "bad", None])
async def test_every_answer_of_a_limited_request_tells_what_is_left(path: str, token: str | None) -> None:
    headers = headers_of(await World().get(path, token))
    assert b"ratelimit-policy" in headers
    assert b"ratelimit" in headers


async def test_without_limits_no_limiter_is_asked() -> None:
    world = World()
    world.policy.limits = LimitPlan()
    assert b"ratelimit" not in headers_of(await world.get("/users/7"))
    assert world.limiter.asked == []


async def test_what_a_target_says_of_its_own_limits_gives_way_to_ours() -> None:
    world = World()
    world.target.answer = lambda request: Response(200, [(b"ratelimit", b"x"), (b"x-request-id", b"theirs")], b"")
    headers = headers_of(await world.get("/users/7"))
    assert headers[b"ratelimit"].startswith(b'"caller"')
    assert headers[b"x-request-id"] == b"req-1"


# Authentication: RFC 6750.


async def test_no_credentials_are_no_error_yet() -> None:
    answer = await World().get("/users/7", None)
    assert answer.status == 401
    assert headers_of(answer)[b"www-authenticate"] == BEARER


async def test_a_malformed_header_is_a_bad_request() -> None:
    answer = await World().get("/users/7", "two words")
    assert answer.status == 400
    assert headers_of(answer)[b"www-authenticate"] == BEARER + b', error="invalid_request"'


@pytest.mark.parametrize("token", ["unknown", "t\xf6ken"])
async def test_a_bad_token_is_an_invalid_token(token: str) -> None:
    answer = await World().get("/users/7", token)
    assert answer.status == 401
    assert headers_of(answer)[b"www-authenticate"] == BEARER + b', error="invalid_token"'


async def test_too_few_scopes_are_named() -> None:
    answer = await World().get("/users", method="POST")
    assert answer.status == 403
    assert headers_of(answer)[b"www-authenticate"] == BEARER + b', error="insufficient_scope", scope="users:write"'


async def test_when_tokens_cannot_be_checked_it_is_not_the_callers_fault() -> None:
    world = World()
    world.authenticator.answer = lambda message: Failure.UNAVAILABLE
    answer = await world.get("/users/7")
    assert answer.status == 503
    assert headers_of(answer)[b"retry-after"] == b"1"
    assert world.publisher.audits == []


async def test_an_open_route_asks_for_nothing() -> None:
    world = World()
    assert (await world.get("/open", "two words")).status == 200
    assert world.authenticator.asked == []
    assert world.target.seen[0].principal is None


@pytest.mark.parametrize(("token", "status"), [(None, 200), ("good", 200), ("bad", 401)])
async def test_an_optional_route_takes_nobody_or_somebody_but_no_impostor(token: str | None, status: int) -> None:
    assert (await World().get("/maybe", token)).status == status


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("bad", 401), ("good", 404)])
async def test_only_who_is_known_learns_that_there_is_nothing(token: str | None, status: int) -> None:
    world = World()
    answer = await world.get("/nowhere/at/all", token)
    assert answer.status == status
    assert world.count("-", status) == 1


async def test_nobody_can_say_who_they_are_themselves() -> None:
    world = World()
    await world.get("/users/7", "good", (b"x-weir-subject", b"root"))
    assert world.target.seen[0].header(b"x-weir-subject") is None


# CORS.


async def test_a_preflight_is_answered_before_limits_and_authentication() -> None:
    world = World()
    headers = ((b"origin", APP_ORIGIN), (b"access-control-request-method", b"PUT"))
    answer = await world.get("/users/7", None, *headers, method="OPTIONS")
    assert answer.status == 204
    assert headers_of(answer)[b"access-control-allow-origin"] == APP_ORIGIN
    assert world.limiter.asked == []


@pytest.mark.parametrize("token", ["good", "bad", None])
async def test_errors_carry_cors_too(token: str | None) -> None:
    headers = headers_of(await World().get("/users/7", token, (b"origin", APP_ORIGIN)))
    assert headers[b"access-control-allow-origin"] == APP_ORIGIN
    assert headers[b"vary"] == b"Origin"


async def test_options_without_an_origin_is_a_request_like_any_other() -> None:
    world = World()
    assert (await world.get("/users/7", method="OPTIONS")).status == 403  # `*` needs users:write


async def test_options_of_the_server_says_what_it_knows() -> None:
    answer = await World().get("*", None, method="OPTIONS")
    assert answer.status == 204
    assert b"PATCH" in headers_of(answer)[b"allow"]


@pytest.mark.parametrize(("method", "status"), [("TRACE", 405), ("CONNECT", 405), ("BREW", 405)])
async def test_a_method_that_nothing_here_takes_is_refused(method: str, status: int) -> None:
    world = World()
    answer = await world.get("/users/7", method=method)
    assert answer.status == status
    assert b"GET" in headers_of(answer)[b"allow"]
    assert world.target.seen == []


# Failures.


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (MailboxFull("full"), 503, b"1"),
        (ActorRestarting("backoff", 2.3), 503, b"3"),
        (ActorStopped("gone"), 503, b"5"),
        (Reject(StoreUnavailable("away")), 503, b"1"),
        (Reject(LimitsUnavailable("login")), 503, b"1"),
        (AskTimeout("slow"), 504, None),
        (ActorCrashed("boom"), 500, None),
        (Reject("nobody knows this"), 500, None),
        (RuntimeError("a bug"), 500, None),
        (ProblemError(409, "conflict"), 409, None),
        (Reject(ProblemError(412, "changed")), 412, None),
    ],
)
@pytest.mark.parametrize("stage", ["limiter", "authenticator", "router", "target"])
async def test_a_stage_that_fails_is_answered_in_its_own_way(
    stage: str, failure: Exception, status: int, retry_after: bytes | None
) -> None:
    world = World()
    getattr(world, stage).answer = lambda message: failure
    answer = await world.get("/users/7")
    assert answer.status == status
    assert headers_of(answer).get(b"retry-after") == retry_after
    assert problem_of(answer)["request_id"] == "req-1"
    assert b"bug" not in answer.body


@pytest.mark.parametrize("stage", ["limiter", "authenticator", "router", "target"])
async def test_one_deadline_bounds_every_stage(stage: str, autojump_clock: MockClock) -> None:
    world = World(request_timeout=10.0)
    getattr(world, stage).answer = hang
    started = trio.current_time()
    answer = await world.get("/users/7")
    assert answer.status == 504
    assert trio.current_time() - started == 10.0


async def test_when_audits_cannot_be_kept_nothing_is_done() -> None:
    world = World(overloaded=lambda: True)
    answer = await world.get("/users/7")
    assert answer.status == 503
    assert problem_of(answer)["type"].endswith("#temporary-reduced-capacity")
    assert world.limiter.asked == world.target.seen == []


async def test_a_request_that_cannot_be_read_is_answered_like_any_other() -> None:
    world = World()
    answer = world.pipeline.refuse(request("", (b"origin", APP_ORIGIN)), ProblemError(400, "bad path"))
    assert headers_of(answer)[b"access-control-allow-origin"] == APP_ORIGIN
    assert headers_of(answer)[b"x-request-id"] == b"req-1"
    assert world.count("-", 400) == 1


# Audits.


@pytest.mark.parametrize(
    ("path", "token", "method", "action", "status", "subject"),
    [
        ("/users/7", None, "GET", "GET /users", 401, ""),
        ("/users/7", "bad", "GET", "GET /users", 401, ""),
        ("/users/7", "two words", "GET", "GET /users", 400, ""),
        ("/users", "good", "POST", "POST /users", 403, "alice"),
        ("/nowhere", "good", "GET", "GET -", 404, "alice"),
    ],
)
async def test_a_refusal_is_audited(
    path: str, token: str | None, method: str, action: str, status: int, subject: str
) -> None:
    world = World()
    await world.get(path, token, method=method)
    (entry,) = world.publisher.audits
    assert (entry.action, entry.entity, entry.status, entry.subject) == (action, path, status, subject)
    assert (entry.outcome, entry.request_id, entry.client, entry.id) == ("denied", "req-1", "192.0.2.1", "new-id")


async def test_a_refusal_for_a_limit_is_audited() -> None:
    world = World()
    world.limiter.answer = refused
    await world.get("/users/7")
    assert [(entry.outcome, entry.status) for entry in world.publisher.audits] == [("denied", 429)]


async def test_what_a_service_answers_it_audits_itself() -> None:
    world = World()
    world.target.answer = lambda request: ProblemError(404, "no such user")
    await world.get("/users/7")
    assert world.publisher.audits == []


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (Response(200), "ok", 200),
        (Response(404), "failed", 404),
        (Response(403), "denied", 403),
        (ProblemError(502, "away"), "failed", 502),
        (RuntimeError("a bug"), "failed", 500),
    ],
)
async def test_what_is_passed_on_is_audited_however_it_ends(answer: Any, outcome: str, status: int) -> None:
    world = World()
    world.target.audited = True
    world.target.answer = lambda request: answer
    await world.get("/orders/9")
    (entry,) = world.publisher.audits
    assert (entry.action, entry.entity) == ("GET /orders", "/orders/9")
    assert (entry.outcome, entry.status, entry.subject) == (outcome, status, "alice")


async def test_what_was_passed_on_is_audited_though_the_connection_was_cut(autojump_clock: MockClock) -> None:
    world = World()
    world.target.audited = True
    world.target.answer = hang
    with trio.move_on_after(1):
        await world.get("/orders/9")
    assert [(entry.outcome, entry.status) for entry in world.publisher.audits] == [("failed", 0)]


async def test_a_token_goes_no_further_than_its_digest_unless_the_auth_service_needs_it() -> None:
    for introspected, carried in ((False, None), (True, b"good")):
        world = World(introspected=introspected)
        assert (await world.get("/users/1")).status == 200
        (asked,) = world.authenticator.asked
        assert (asked.digest, asked.token) == (ALICE.digest, carried)
        assert "good" not in repr([world.limiter.asked, world.authenticator.asked, world.publisher.audits])
