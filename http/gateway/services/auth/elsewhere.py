"""What stands at `/oauth` when the Auth Service is elsewhere (`oauth`): whoever asks here is told so."""

from gateway.problem import ProblemError
from gateway.services.auth.records import TOKEN
from gateway.services.service import Service


class OAuthElsewhere(Service):
    """Answers everything with 404. Where the service is, is the operator's to tell: it may be out of clients' reach."""

    prefix = "/oauth"
    noun = TOKEN
    operations = ()

    def refusal(self, method: str, rest: str, path: str) -> ProblemError:
        return ProblemError(404, "tokens are issued, introspected and revoked by another Auth Service, not here")
