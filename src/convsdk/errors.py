"""The errors of convsdk, sorted by what the caller does next.

::

    ConvsdkError
    ├── ConfigError        edit the configuration
    ├── TransientError     try again, after `retry_after_s` where it is known
    ├── UncertainError     find out whether it was done before you try again
    ├── PermanentError     stop trying
    ├── ParseError         keep the raw bytes aside and go on with the next
    ├── Forbidden          refuse the request, and tell its sender nothing
    ├── Conflict           somebody else, or a rule, decided otherwise: read again
    ├── NotFound           what was asked for is not there
    └── UnsupportedError   use another way

No third party's exception leaves an adapter or a store: it is turned into one of these, with the cause attached.
"""


class ConvsdkError(Exception):
    """The base of every error that convsdk raises on purpose."""


class ConfigError(ConvsdkError):
    """Something in the configuration is wrong; each line of the message names a place and a remedy."""


class TransientError(ConvsdkError):
    """It did not work now and may work later.

    `retry_after_s` is the pause that the other side asked for, in seconds, or None where it named none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UncertainError(ConvsdkError):
    """It may have been done, and nobody said so: the answer to what was sent did not come."""


class PermanentError(ConvsdkError):
    """It will not work, however often it is tried. `code` is the platform's own, where it gave one."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ParseError(ConvsdkError):
    """The bytes are not what the channel's platform sends. Keep them, report them, go on with the next."""


class Forbidden(ConvsdkError):  # noqa: N818  (the name of the HTTP status that it becomes)
    """The request is not authentic. Its text is for the operator's log and holds no secret and no body."""


class Conflict(ConvsdkError):  # noqa: N818  (the name of the HTTP status that it becomes)
    """The call collides with a decision that stands, such as a recorded "not the same person"."""


class NotFound(ConvsdkError):  # noqa: N818  (the name of the HTTP status that it becomes)
    """No contact, conversation, hint or merge of that id is in this workspace."""


class UnsupportedError(ConvsdkError):
    """This channel or store cannot do that; the message names what can."""


def words_of(error: BaseException) -> str:
    """Give what of an error may be shown and stored: the words of one of ours, of any other its name alone.

    The text of that can hold anybody's words. What no store can keep, half a character, is replaced.
    """
    return str(error).encode("utf-8", "replace").decode() if isinstance(error, ConvsdkError) else type(error).__name__
