"""Which of several exceptions ended an incarnation. Pure.

A task tree that fails leaves a group: the failure, and a Cancelled from every task that was cancelled for it.
"""

import trio


def root_cause(error: BaseException) -> BaseException | None:
    """The first exception of a (nested) group that is not Cancelled; None when there is no other."""
    if isinstance(error, trio.Cancelled):
        return None
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [cause for cause in map(root_cause, error.exceptions) if cause is not None]
    # A KeyboardInterrupt beside an error is what ends the program.
    return next((cause for cause in causes if not isinstance(cause, Exception)), causes[0] if causes else None)
