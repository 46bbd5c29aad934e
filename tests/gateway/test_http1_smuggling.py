"""Requests that two readers could read differently, as bytes on the real server: each is refused, and what an
attacker hides behind it is never handled. (RFC 9112 §11.2; many of the payloads are known from the HTTP Garden.)"""

import pytest
import trio

from gateway.request import Response
from tests.gateway.serving import is_closed, read_answer
from tests.gateway.test_asgi import front

HOST = b"Host: weir\r\n"
SMUGGLED = b"GET /open/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


def head(*lines: bytes, line: bytes = b"POST /open HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join(item + b"\r\n" for item in lines) + b"\r\n"


def chunked(body: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked") + body


def get(target: bytes) -> bytes:
    return head(line=b"GET " + target + b" HTTP/1.1")


LENGTHS = {
    "length and chunked": (head(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "chunked and length": (head(b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"0\r\n\r\n", 400),
    "two equal lengths": (head(b"Content-Length: 3", b"Content-Length: 3") + b"abc", 400),
    "two lengths": (head(b"Content-Length: 3", b"Content-Length: 0") + b"abc", 400),
    "a list of lengths": (head(b"Content-Length: 3, 3") + b"abc", 400),
    "a signed length": (head(b"Content-Length: +3") + b"abc", 400),
    "a negative length": (head(b"Content-Length: -3") + b"abc", 400),
    "a hexadecimal length": (head(b"Content-Length: 0x3") + b"abc", 400),
    "a length with a space": (head(b"Content-Length: 3 3") + b"abc", 400),
    "a length with an underscore": (head(b"Content-Length: 1_0") + b"abc", 400),
    "an empty length": (head(b"Content-Length:") + b"abc", 400),
    "a length beyond 64 bits": (head(b"Content-Length: 18446744073709551619") + b"abc", 400),
    "chunked in HTTP/1.0": (head(b"Transfer-Encoding: chunked", line=b"POST /open HTTP/1.0") + b"0\r\n\r\n", 400),
    "chunked and kept in HTTP/1.0": (
        head(b"Connection: keep-alive", b"Transfer-Encoding: chunked", line=b"POST /open HTTP/1.0") + b"0\r\n\r\n",
        400,
    ),
}
CODINGS = {
    "gzip": (head(b"Transfer-Encoding: gzip"), 501),
    "gzip, chunked": (head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
    "chunked, gzip": (head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", 400),
    "chunked twice in a list": (head(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", 400),
    "chunked twice": (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "chunked after identity": (head(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 501),
    "identity": (head(b"Transfer-Encoding: identity"), 501),
    "xchunked": (head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", 501),
    "chunked with a parameter": (head(b"Transfer-Encoding: chunked;a=b") + b"0\r\n\r\n", 501),
    "quoted": (head(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n", 501),
    "nothing": (head(b"Transfer-Encoding:") + b"0\r\n\r\n", 400),
    "a comma before": (head(b"Transfer-Encoding: , chunked") + b"0\r\n\r\n", 501),
    "a vertical tab before": (head(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n", 400),
    "a form feed behind": (head(b"Transfer-Encoding: chunked\x0c") + b"0\r\n\r\n", 400),
}
HOSTS = {
    "none": (head(host=b""), 400),
    "two": (head(host=HOST + b"Host: other\r\n"), 400),
    "two that are equal": (head(host=HOST + HOST), 400),
    "a list": (head(host=b"Host: weir, other\r\n"), 400),
    "a path": (head(host=b"Host: weir/open\r\n"), 400),
    "an at sign": (head(host=b"Host: other@weir\r\n"), 400),
    "a space": (head(host=b"Host: we ir\r\n"), 400),
    "no port": (head(host=b"Host: weir:x\r\n"), 400),
    "two ports": (head(host=b"Host: weir:80:80\r\n"), 400),
    "an open bracket": (head(host=b"Host: [::1\r\n"), 400),
    "a byte above ASCII": (head(host=b"Host: w\xe9ir\r\n"), 400),
    "two in HTTP/1.0": (head(line=b"GET /open HTTP/1.0", host=HOST + HOST), 400),
}
LINES = {
    "a bare LF behind the request line": (b"GET /open HTTP/1.1\n" + HOST + b"\r\n", 400),
    "a bare LF behind a field": (b"GET /open HTTP/1.1\r\nX: a\n" + HOST + b"\r\n", 400),
    "a bare LF at the end of the head": (b"GET /open HTTP/1.1\r\n" + HOST + b"\n", 400),
    "a bare CR in a value": (head(b"X: a\rb"), 400),
    "a bare CR in the request line": (head(line=b"GET /open\r HTTP/1.1"), 400),
    "a folded field": (head(b"X: a\r\n b"), 400),
    "a folded field by a tab": (head(b"X: a\r\n\tb"), 400),
    "a folded first field": (b"GET /open HTTP/1.1\r\n " + HOST + b"\r\n", 400),
    "a folded coding": (head(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n", 400),
    "a NUL in a value": (head(b"X: a\0b"), 400),
    "a NUL in a name": (head(b"X\0: a"), 400),
    "a NUL in the target": (get(b"/open\0"), 400),
    "another control character in a value": (head(b"X: a\x01b"), 400),
    "DEL in a value": (head(b"X: a\x7fb"), 400),
    "a space before the colon": (head(b"Content-Length : 3") + b"abc", 400),
    "a tab before the colon": (head(b"Content-Length\t: 3") + b"abc", 400),
    "a space in a name": (head(b"Content Length: 3") + b"abc", 400),
    "an empty name": (head(b": 3"), 400),
    "no colon": (head(b"X"), 400),
    "a byte above ASCII in a name": (head(b"X\xa0: a"), 400),
    "a space before the method": (head(line=b" GET /open HTTP/1.1"), 400),
    "a tab behind the method": (head(line=b"GET\t/open HTTP/1.1"), 400),
    "a space behind the version": (head(line=b"GET /open HTTP/1.1 "), 400),
    "a space in the target": (get(b"/open /x"), 400),
    "a method in lower case": (head(line=b"get /open HTTP/1.1"), 400),
    "a method that nobody knows": (head(line=b"SMUGGLE /open HTTP/1.1"), 501),
}
VERSIONS = {
    "HTTP/0.9": (b"GET /open\r\n\r\n", 505),
    "HTTP/1.2": (head(line=b"GET /open HTTP/1.2"), 505),
    "HTTP/2.0": (head(line=b"GET /open HTTP/2.0"), 505),
    "HTTP/01.1": (head(line=b"GET /open HTTP/01.1"), 400),
    "HTTP/1.10": (head(line=b"GET /open HTTP/1.10"), 400),
    "http/1.1": (head(line=b"GET /open http/1.1"), 400),
    "RTSP": (head(line=b"GET /open RTSP/1.0"), 505),
    "RTSP as 1.1": (head(line=b"POST /open RTSP/1.1"), 505),
    "a method of RTSP": (head(line=b"DESCRIBE /open RTSP/1.0"), 505),
    "ICE": (head(line=b"SOURCE /open ICE/1.0"), 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
}
CHUNKS = {
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a space behind the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "a plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "a minus": b"-3\r\nabc\r\n0\r\n\r\n",
    "an underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "beyond 64 bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\n0\r\n\r\n",
    "an extension that ends in a bare LF": b"3;a\nabc\r\n0\r\n\r\n",
    "a value of an extension that ends in a bare LF": b"3;a=b\nabc\r\n0\r\n\r\n",
    "a bare CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "a NUL in an extension": b"3;\0\r\nabc\r\n0\r\n\r\n",
    "a line break in a quoted extension": b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n',
    "a size that ends in a bare LF": b"3\nabc\r\n0\r\n\r\n",
    "data that end in a bare LF": b"3\r\nabc\n0\r\n\r\n",
    "more data than the size": b"3\r\nabcd\r\n0\r\n\r\n",
    "less data than the size": b"3\r\nab\r\n0\r\n\r\n",
    "an end with a bare LF": b"0\n\r\n",
    "an end with two bare LF": b"0\r\n\n",
    "a trailer with a bare LF": b"0\r\nX: y\nZ: z\r\n\r\n",
    "a length as a trailer": b"0\r\nContent-Length: 5\r\n\r\n",
    "a coding as a trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an extension without an end": b"3;" + b"x" * 400_000,
    "a trailer without an end": b"0\r\nX: " + b"x" * 400_000,
    "trailers without number": b"0\r\n" + b"X: y\r\n" * 60_000,
    "many long extensions": b"".join(b"1;" + b"x" * 1000 + b"\r\na\r\n" for _ in range(400)),
}
REFUSED = {
    f"{table}: {name}": case
    for table, cases in {
        "length": LENGTHS,
        "coding": CODINGS,
        "host": HOSTS,
        "line": LINES,
        "version": VERSIONS,
        "chunk": {name: (chunked(body), 400) for name, body in CHUNKS.items()},
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_it_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    async with front() as here, await here.connect() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, sent + SMUGGLED * 2)
            answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close\r\n" in answer
        assert b"content-type: application/problem+json" in answer
        assert await is_closed(stream)
        assert here.world.target.seen == []


# Of these the end is beyond doubt: only the request itself is refused.
TARGETS = {
    "another authority": get(b"http://other/open"),
    "another port": get(b"http://weir:81/open"),
    "a user": get(b"http://user@weir/open"),
    "a backslash in the authority": get(b"http://other\\@weir/open"),
    "another scheme": get(b"ftp://weir/open"),
    "asterisk": get(b"*"),
    "dot segment": get(b"/open/./x"),
    "two dots": get(b"/open/../users"),
    "escaped dots": get(b"/open/%2e%2e/users"),
    "half-escaped dots": get(b"/open/.%2E/users"),
    "dots with a parameter": get(b"/open/..;a/users"),
    "absolute with dots": get(b"http://weir/open/../users"),
    "an escaped slash": get(b"/open%2fusers"),
    "an escaped backslash": get(b"/open%5Cusers"),
    "a backslash": get(b"/open\\users"),
    "an escaped NUL": get(b"/open%00"),
    "an escaped line break": get(b"/open%0d%0a"),
    "a parameter": get(b"/open;a=b"),
    "an escaped semicolon": get(b"/open%3ba"),
    "two slashes": get(b"//open"),
    "two slashes inside": get(b"/open//x"),
    "no escape": get(b"/open%zz"),
    "half an escape": get(b"/open%2"),
    "an overlong slash": get(b"/open%c0%afusers"),
    "a fragment": get(b"/open#x"),
}


@pytest.mark.parametrize("sent", TARGETS.values(), ids=TARGETS.keys())
async def test_an_ambiguous_target_is_refused_and_reaches_nobody(sent: bytes) -> None:
    async with front() as here:
        status, headers, _ = await here.ask(sent)
        assert status == 400
        assert headers[b"content-type"] == b"application/problem+json"
        assert here.world.target.seen == []


@pytest.mark.parametrize(
    "sent", [get(b"weir:80"), head(line=b"CONNECT weir HTTP/1.1"), head(line=b"CONNECT weir:x HTTP/1.1")]
)
async def test_an_authority_is_no_target(sent: bytes) -> None:
    async with front() as here:
        assert (await here.ask(sent))[0] == 400
        assert here.world.target.seen == []


SAME = {
    "plain": (b"/open/x", "/open/x", b""),
    "absolute": (b"http://weir/open/x", "/open/x", b""),
    "absolute in another case": (b"HTTP://WEIR/open/x?q", "/open/x", b"q"),
    "escaped letters": (b"/%6Fpen/%78", "/open/x", b""),
    "a lower-case escape": (b"/open/%c3%a4", "/open/%C3%A4", b""),
    "an illegal character": (b"/open/{x}", "/open/%7Bx%7D", b""),
    "a query that looks like a path": (b"/open?a=/../%2f;//", "/open", b"a=/../%2f;//"),
    "two question marks": (b"/open?a?b", "/open", b"a?b"),
}


@pytest.mark.parametrize(("target", "path", "query"), SAME.values(), ids=SAME.keys())
async def test_what_is_accepted_is_decided_on_and_forwarded_as_one_path(target: bytes, path: str, query: bytes) -> None:
    async with front() as here:
        status, _, _ = await here.ask(get(target))
        assert status == 200
        assert (here.seen.path, here.seen.query) == (path, query)
        assert [message.path for message in here.world.router.asked] == [path]


BODIES = {
    "a length": (head(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, SMUGGLED),
    "leading zeros": (head(b"Content-Length: 0003") + b"abc", b"abc"),
    "chunked in another case": (head(b"Transfer-Encoding: CHUNKED") + b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    "an extension": (chunked(b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n'), b"abc"),
    "trailers": (chunked(b"3\r\nabc\r\n0\r\nHost: other\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"), b"abc"),
    "a body of GET": (head(b"Content-Length: 3", line=b"GET /open HTTP/1.1") + b"abc", b"abc"),
}


@pytest.mark.parametrize(("sent", "body"), BODIES.values(), ids=BODIES.keys())
async def test_a_body_is_all_that_its_framing_says_and_no_more(sent: bytes, body: bytes) -> None:
    async with front(answer=lambda request: Response(200, [], request.body)) as here, await here.connect() as stream:
        await stream.send_all(sent + head(b"Content-Length: 2", b"Connection: close") + b"ok")
        received = b""
        with trio.fail_after(5):
            while part := await stream.receive_some():
                received += part
        assert [request.body for request in here.world.target.seen] == [body, b"ok"]
        assert [request.path for request in here.world.target.seen] == ["/open", "/open"]
        assert all(request.header(b"x-forwarded-for") is None for request in here.world.target.seen)


UPGRADES = {
    "of a length": b"Content-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED),
    "in chunks": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
}


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"x"])
@pytest.mark.parametrize("method", [b"POST", b"GET"])
@pytest.mark.parametrize("rest", UPGRADES.values(), ids=UPGRADES.keys())
async def test_the_body_of_a_request_that_offers_an_upgrade_is_no_request(
    rest: bytes, method: bytes, protocol: bytes
) -> None:
    offer = method + b" /open HTTP/1.1\r\nHost: weir\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n" + rest
    async with front() as here, await here.connect() as stream:
        await stream.send_all(offer + head(b"Connection: close", line=b"GET /open/next HTTP/1.1"))
        assert await is_closed(stream)
        assert [(seen.path, seen.body) for seen in here.world.target.seen] == [
            ("/open", SMUGGLED),
            ("/open/next", b""),
        ]


async def test_what_follows_connect_is_nobodys() -> None:
    async with front() as here, await here.connect() as stream:
        sent = head(b"Content-Length: %d" % len(SMUGGLED), line=b"CONNECT weir:443 HTTP/1.1")
        await stream.send_all(sent + SMUGGLED * 2)
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in answer
        assert await is_closed(stream)
        assert here.world.target.seen == []


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it has been told enough
