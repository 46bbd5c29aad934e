"""Parameters that several operations have. Data for the OpenAPI document; pure."""

from gateway.services.idempotency import MAX_LENGTH
from gateway.services.operation import Parameter
from gateway.services.query import DEFAULT_LIMIT, MAX_LIMIT

LIMIT = Parameter(
    "limit",
    "How many items a page has at most.",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
CURSOR = Parameter(
    "cursor", "The `next_cursor` of the page before; opaque.", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
)
IF_MATCH = Parameter(
    "If-Match", "Write only if the current ETag is one of these; else 412.", {"type": "string"}, "header"
)
IF_NONE_MATCH_READ = Parameter(
    "If-None-Match", "Answer 304 if the current ETag is one of these.", {"type": "string"}, "header"
)
IF_NONE_MATCH_WRITE = Parameter(
    "If-None-Match", "`*`: write only if there is nothing yet; else 412.", {"type": "string"}, "header"
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "The same key with the same body gets the first answer again, for 24 hours; with another body 422.",
    # Printable ASCII; a header's value neither begins nor ends with a space.
    {"type": "string", "maxLength": MAX_LENGTH, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "header",
)
