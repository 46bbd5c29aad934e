"""Errors as `application/problem+json` (RFC 9457). Pure."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from gateway.request import Headers, Response

CONTENT_TYPE = (b"content-type", b"application/problem+json")
NO_STORE = (b"cache-control", b"no-store")

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


class FieldError(msgspec.Struct, frozen=True):
    """One faulty member of a JSON body. `pointer` is a JSON Pointer fragment (RFC 6901): `#/email`."""

    pointer: str
    detail: str


class ProblemError(Exception):
    """A response that is an error. Services raise it, the pipeline answers with it."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        type: str = "about:blank",
        headers: Sequence[tuple[bytes, bytes]] = (),
        errors: Sequence[FieldError] = (),
        **extensions: Any,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.type = type
        self.headers = tuple(headers)
        self.errors = tuple(errors)
        self.extensions = extensions

    def response(self, request_id: str) -> Response:
        return problem(
            self.status,
            self.detail,
            request_id,
            type=self.type,
            headers=self.headers,
            errors=self.errors,
            **self.extensions,
        )


def problem(
    status: int,
    detail: str,
    request_id: str,
    *,
    type: str = "about:blank",
    headers: Sequence[tuple[bytes, bytes]] = (),
    errors: Sequence[FieldError] = (),
    **extensions: Any,
) -> Response:
    """A problem response. *detail* is about this occurrence and safe to show; `title` is the status phrase."""
    body: dict[str, Any] = {
        "type": type,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": f"/requests/{request_id}",
        "request_id": request_id,
    }
    if errors:
        body["errors"] = list(errors)
    body.update(extensions)
    all_headers: Headers = [CONTENT_TYPE, NO_STORE, *headers]
    return Response(status, all_headers, msgspec.json.encode(body))
