"""Hypercorn's WebSocket, with what its 0.18 leaves out of RFC 6455.

A message that was too large went on being kept, without bound, while its client sent on; a connection was failed
without the Close frame that says why (§7.1.7); and no app was told the code that its client closed with.
"""

from typing import Any, cast

import h11
from hypercorn.protocol.events import EndData, Event, Request, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

_TOO_LARGE = CloseConnection(code=CloseReason.MESSAGE_TOO_BIG)


class BoundedBuffer(WebsocketBuffer):
    """Keeps no more of a message that was too large."""

    def extend(self, event: Message[Any]) -> None:
        if self.length > self.max_length:
            raise FrameTooLargeError
        super().extend(event)


class WebSocket(WSStream):
    _code: int | None = None

    async def handle(self, event: Event) -> None:
        if isinstance(event, StreamClosed) and self._code is not None and not self.closed:
            self.closed = True
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": self._code})
        else:
            await super().handle(event)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    await self._end(_TOO_LARGE)
                    return
                if event.message_finished and self.app_put is not None:
                    await self.app_put(self.buffer.to_message())
                    self.buffer.clear()
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._end(event)
                return

    async def _end(self, close: CloseConnection) -> None:
        """Say goodbye: in answer to the client's, or as it broke the protocol. What else it sends is nobody's."""
        self._code = int(close.code)
        if self.connection.state is ConnectionState.REMOTE_CLOSING:
            await self._send_wsproto_event(close.response())
        else:
            await self._send_wsproto_event(CloseConnection(code=close.code))
        await self.send(EndData(stream_id=self.stream_id))
        await self.send(StreamClosed(stream_id=self.stream_id))


class WebSocketProtocol(H11Protocol):
    """A connection that begins with a WebSocket's handshake: nothing else is handed over."""

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = WebSocket(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, self.stream_send,
            STREAM_ID,
        )  # fmt: skip
        self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        self.keep_alive_requests += 1  # what refuses it says that it is the last
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method="GET",
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        await self.context.mark_request()
