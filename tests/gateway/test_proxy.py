"""What the proxy sends on, what it passes back, and which upstream gets the request."""

import pytest
import trio.testing

from tests.gateway.proxying import FakeWire, Peer, asked, forward, proxy, refused_with, said, through, to, upstream


async def test_an_upstream_gets_the_canonical_path_and_who_calls() -> None:
    async with upstream(said(b"200 OK", body=b"order")) as peer:
        query = b"q=%zz&r=a|b/../c"
        sent = ((b"authorization", b"Bearer t"), (b"connection", b"x-mine"), (b"x-mine", b"1"))
        answer = await forward(asked("/orders/x%20y", "GET", b"", query, *sent), peer.url)
    head = peer.heard[0].lower()
    assert peer.heard[0].startswith(b"GET /orders/x%20y?" + query + b" HTTP/1.1\r\n")
    assert b"host: api.example:8000\r\n" in head
    assert b"x-weir-subject: alice\r\n" in head
    assert b"x-weir-scopes: users:read\r\n" in head
    assert b"x-forwarded-for: 192.0.2.1\r\n" in head
    assert b'forwarded: for=192.0.2.1;host="api.example:8000";proto=http\r\n' in head
    for absent in (b"authorization", b"x-mine", b"user-agent", b"content-length", b"transfer-encoding", b"connection"):
        assert b"\r\n" + absent not in head
    assert (answer.status, answer.body) == (200, b"order")


async def test_on_a_route_without_authentication_the_upstream_may_do_its_own() -> None:
    async with upstream(said(b"200 OK")) as peer:
        await forward(asked("/o", "GET", b"", b"", (b"authorization", b"Basic x")), peer.url, auth="none")
    assert b"authorization: basic x" in peer.heard[0].lower()


async def test_a_request_without_a_host_names_the_upstream() -> None:
    async with upstream(said(b"200 OK")) as peer:
        request = asked()
        request.headers = []
        await forward(request, peer.url)
    assert b"host: %b\r\n" % peer.url.removeprefix("http://").encode() in peer.heard[0]


async def test_a_body_is_framed_anew() -> None:
    async def created(peer: Peer, head: bytes) -> None:
        assert await peer.body(3) == b"abc"
        await peer.say(said(b"201 Created"))

    async with upstream(created) as peer:
        await forward(asked("/o", "POST", b"abc", b"", (b"transfer-encoding", b"chunked")), peer.url)
    assert b"content-length: 3\r\n" in peer.heard[0].lower()
    assert b"transfer-encoding" not in peer.heard[0].lower()


async def test_a_post_without_a_body_says_so() -> None:
    async with upstream(said(b"200 OK")) as peer:
        await forward(asked(method="POST"), peer.url)
    assert b"content-length: 0\r\n" in peer.heard[0]


SMUGGLED = [
    (b"x-a", b"1\r\nx-weir-subject: root"),
    (b"x-a", b"1\nb: 2"),
    (b"x-a", b"\x00"),
    (b"transfer-encoding ", b"chunked"),
    (b"x a", b"1"),
    (b"x-a: 1\r\nb", b"2"),
    (b"", b"1"),
]


@pytest.mark.parametrize("header", SMUGGLED)
async def test_what_cannot_be_written_in_http_1_is_refused_and_not_sent(header: tuple[bytes, bytes]) -> None:
    async with upstream() as peer:
        assert await refused_with(asked("/o", "GET", b"", b"", header), peer.url) == 400
    assert peer.heard == []


@pytest.mark.parametrize("query", [b"a b", b"a HTTP/1.1\r\nx: y", b"\x00", b"a\tb"])
async def test_a_query_that_would_end_the_request_line_is_refused(query: bytes) -> None:
    async with upstream() as peer:
        assert await refused_with(asked("/o", "GET", b"", query), peer.url) == 400
    assert peer.heard == []


async def test_an_upstreams_answer_comes_back_as_it_is() -> None:
    headers = (
        b"Location: /elsewhere", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"Server: theirs", b"X-Hop: 1",
        b"Connection: x-hop", b"X-Empty:", b"X-Spaces:  a b \t ",
    )  # fmt: skip
    async with upstream(said(b"302 Found", *headers)) as peer:
        answer = await forward(asked(), peer.url)
    assert answer.status == 302
    assert answer.headers == [
        (b"location", b"/elsewhere"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-empty", b""),
        (b"x-spaces", b"a b"),
        (b"via", b"1.1 weir"),
    ]


async def test_one_callers_cookies_are_nobody_elses() -> None:
    async with upstream(said(b"200 OK", b"Set-Cookie: session=secret"), said(b"200 OK")) as peer:
        with proxy(peer.url) as target:
            for _ in range(2):
                await target.handle(asked(), to())
    assert b"session" not in peer.heard[1]


async def test_a_compressed_answer_stays_compressed() -> None:
    async with upstream(said(b"200 OK", b"Content-Encoding: gzip", body=b"\x1f\x8bnot really")) as peer:
        assert (await forward(asked(), peer.url)).body == b"\x1f\x8bnot really"


async def test_an_answer_to_head_keeps_its_length_and_its_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"
    async with upstream(head, head, said(b"200 OK", body=b"x")) as peer:
        with proxy(peer.url) as target:
            for _ in range(2):
                answer = await target.handle(asked(method="HEAD"), to())
                assert (b"content-length", b"12345") in answer.headers
                assert answer.body == b""
            assert (await target.handle(asked(), to())).body == b"x"
        assert peer.connections == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_an_answer_to_head_with_a_body_is_the_last_of_its_connection(framing: bytes) -> None:
    async with upstream(b"HTTP/1.1 200 OK\r\n" + framing, said(b"200 OK", body=b"x")) as peer:
        with proxy(peer.url) as target:
            assert (await target.handle(asked(method="HEAD"), to())).body == b""
            assert (await target.handle(asked(), to())).body == b"x"
        assert peer.connections == 2


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_a_body_ends_with_its_head(status: bytes) -> None:
    async with upstream(b"HTTP/1.1 " + status + b'\r\nETag: "1"\r\n\r\n', said(b"200 OK")) as peer:
        with proxy(peer.url) as target:
            answer = await target.handle(through(FakeWire()), to())
            assert (answer.body, answer.sent) == (b"", False)
            await target.handle(asked(), to())
        assert peer.connections == 1


async def test_interim_answers_are_not_the_answer() -> None:
    interim = b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with upstream(interim + said(b"200 OK", body=b"x")) as peer:
        answer = await forward(asked(), peer.url)
    assert (answer.status, answer.body, answer.headers) == (200, b"x", [(b"via", b"1.1 weir")])


async def test_a_chunked_answer_is_whole_without_its_trailers() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    async with upstream(chunked, said(b"200 OK")) as peer:
        with proxy(peer.url) as target:
            answer = await target.handle(asked(), to())
            assert (answer.body, answer.headers) == (b"abcde", [(b"via", b"1.1 weir")])
            await target.handle(asked(), to())
        assert peer.connections == 1


async def test_an_answer_that_the_end_of_the_connection_ends() -> None:
    async with upstream(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc") as peer:
        assert (await forward(asked(), peer.url)).body == b"abc"


# Connections.


async def test_a_connection_carries_one_request_after_another() -> None:
    async with upstream(*[said(b"200 OK", body=b"x")] * 3) as peer:
        with proxy(peer.url) as target:
            for _ in range(3):
                assert (await target.handle(asked(), to())).body == b"x"
            assert peer.connections == 1


@pytest.mark.parametrize(
    "closing", [b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", said(b"200 OK", b"Connection: close")]
)
async def test_a_connection_that_the_upstream_will_close_carries_no_other(closing: bytes) -> None:
    async with upstream(closing, said(b"200 OK")) as peer:
        with proxy(peer.url) as target:
            for _ in range(2):
                await target.handle(asked(), to())
            assert peer.connections == 2


async def test_an_answer_nobody_asked_for_is_nobodys() -> None:
    twice = said(b"200 OK", body=b"mine") + said(b"200 OK", body=b"poison")
    async with upstream(twice, said(b"200 OK", body=b"yours")) as peer:
        with proxy(peer.url) as target:
            assert [(await target.handle(asked(), to())).body for _ in range(2)] == [b"mine", b"yours"]
            assert peer.connections == 2


async def test_what_comes_late_and_unasked_is_nobodys_either() -> None:
    async def twice(peer: Peer, head: bytes) -> None:
        await peer.say(said(b"200 OK", body=b"mine"))
        await peer.say(said(b"200 OK", body=b"poison"))

    async with upstream(twice, said(b"200 OK", body=b"yours")) as peer:
        with proxy(peer.url) as target:
            assert (await target.handle(asked(), to())).body == b"mine"
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert (await target.handle(asked(), to())).body == b"yours"
