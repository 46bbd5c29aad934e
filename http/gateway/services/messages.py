"""What every service understands."""

from dataclasses import dataclass

from gateway.request import Request


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """→ `Response`. *rest* is the path below the service's prefix: `""`, or starting with `/`."""

    request: Request
    rest: str
