"""JSON bodies in, values or the complete list of their faults out. Pure."""

import re
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from gateway.problem import FieldError, ProblemError

T = TypeVar("T")
_PATH = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def check_media_type(content_type: bytes | None, allowed: tuple[str, ...]) -> None:
    """Raise a 415 unless the body is of an *allowed* type, in UTF-8. None: the sender did not say, and is believed."""
    if content_type is None:
        return
    media, *parameters = content_type.decode("latin-1").lower().split(";")
    expected = " or ".join(allowed)
    if media.strip() not in allowed:
        header = (
            b"accept-patch" if "application/merge-patch+json" in allowed else b"accept",
            ", ".join(allowed).encode(),
        )
        raise ProblemError(415, f"the body must be {expected}, got {media.strip() or 'nothing'!r}", headers=[header])
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') != "utf-8":
            raise ProblemError(415, f"the body must be encoded in utf-8, got charset {value!r}")


def check_coding(content_encoding: bytes | None) -> None:
    """Raise a 415 for a compressed body, which nobody here would unpack (RFC 9110 §15.5.16)."""
    coding = (content_encoding or b"identity").decode("latin-1").strip().lower()
    if coding != "identity":
        raise ProblemError(
            415,
            f"the body must be sent as it is, got Content-Encoding {coding!r}",
            headers=[(b"accept-encoding", b"identity")],
        )


def parse_json(body: bytes) -> Any:
    """The value of a JSON text (RFC 8259). Raises a 400 that says what is malformed."""
    if not body:
        raise ProblemError(400, "the body is empty; a JSON value is expected")
    try:
        return msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        detail = f"the body is not UTF-8: {error.reason} at byte {error.start}"
    except RecursionError:
        detail = "the body is nested too deeply"
    except msgspec.DecodeError as error:
        detail = f"the body is not JSON: {error}"
    raise ProblemError(400, detail)


def invalid(errors: list[FieldError]) -> ProblemError:
    count = "one member" if len(errors) == 1 else f"{len(errors)} members"
    return ProblemError(422, f"{count} of the body cannot be accepted; see errors", errors=errors)


def faults(value: object, shape: type[msgspec.Struct]) -> list[FieldError]:
    """Everything in which *value* differs from *shape*, each fault with a JSON Pointer to it.

    msgspec reports the first fault alone, so each member is converted by itself.
    """
    if not isinstance(value, dict):
        return [FieldError("#", f"an object is expected, got {json_type(value)}")]
    found = []
    fields = msgspec.structs.fields(shape)
    for field in fields:
        if field.encode_name not in value:
            if field.required:
                found.append(FieldError(pointer(field.encode_name), "is required"))
            continue
        try:
            msgspec.convert(value[field.encode_name], field.type)
        except msgspec.ValidationError as error:
            found.append(located(error, field.encode_name))
    known = {field.encode_name for field in fields}
    found.extend(FieldError(pointer(name), "is not a member that can be set") for name in value if name not in known)
    return found


def convert(value: object, shape: type[T]) -> T:
    """*value* (without faults) as a *shape*."""
    return msgspec.convert(value, shape)


def located(error: msgspec.ValidationError, member: str) -> FieldError:
    """msgspec's message about *member* with its path turned into a JSON Pointer."""
    match = _PATH.fullmatch(str(error))
    message, path = (match[1], match[2]) if match else (str(error), "")
    steps = [step[0] or step[1] for step in _STEP.findall(path)]
    return FieldError(pointer(member, *steps), message[:1].lower() + message[1:])


def pointer(*steps: str) -> str:
    """A JSON Pointer as a URI fragment (RFC 6901 §6)."""
    escaped = (step.replace("~", "~0").replace("/", "~1") for step in steps)
    return "#/" + "/".join(_fragment(step) for step in escaped)


def _fragment(text: str) -> str:
    # A lone surrogate cannot come from JSON that was decoded, so encoding cannot fail.
    return quote(text, safe="~!$&'()*+,;=:@")


def json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
