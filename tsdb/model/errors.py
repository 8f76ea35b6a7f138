"""The errors of the whole house, each named by who must act; `treering.http.api` turns them into HTTP statuses.

Messages are for people: they name the value, the limit and the place.
"""


class TreeringError(Exception):
    """Any failure that Treering itself reports; everything else is a bug."""


class BadData(TreeringError):
    """The caller sent something that can never work: status 400, errorType `bad_data`. Never retried."""


class QueryFailed(BadData):
    """The query is well formed, but its evaluation is impossible (say, many-to-many matching): 422 `execution`."""


class LimitExceeded(TreeringError):
    """The caller asked for more than its limits allow.

    With `retry_after_s` the same request may work later (429); without, it must be made smaller (422).
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFound(TreeringError):
    """What was named does not exist: status 404."""


class Unavailable(TreeringError):
    """A part of the system cannot answer now; the same request will work later: status 503."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueryTimeout(Unavailable):
    """The query ran longer than its timeout: status 503, errorType `timeout`."""


class QueryCanceled(TreeringError):
    """The client left before the answer was ready: status 499, errorType `canceled`."""


class Corrupt(TreeringError):
    """Stored bytes are not what was written; an operator must look: status 500. Names the object and the offset."""
