"""What can go wrong with content: the `ContentError` branch of the error tree.

    ContentError
    ├── InvalidCid           not a CID that this operator can use (Refused)
    ├── ContentUnreachable   a gateway gave no usable answer: unknown, try again (Unavailable)
    ├── ContentNotFound      gateways answered, none has it (yet); try again (NotFound)
    ├── ContentMismatch      every gateway gave other bytes than the CID stands for (Mismatch)
    ├── ContentMalformed     the bytes match the CID but are not one file (Refused)
    ├── ContentTooLarge      more bytes than allowed (Refused)
    ├── PinUnavailable       the pinning service gave no usable answer; try again (Unavailable)
    ├── PinRefused           the pinning service refused us: credentials, quota, request (Refused)
    ├── PinMismatch          the pinning service named another CID than the bytes have (Refused)
    ├── EndpointForbidden    an endpoint that is never asked: not https, not on the internet (Refused)
    ├── EndpointFailed       a poster's endpoint answered no; it may say yes later (NotFound)
    └── EndpointUnreachable  a poster's endpoint gave no answer: unknown, try again (Unavailable)

`retryable` says whether the same call can succeed later without anybody changing our settings.
"""

from __future__ import annotations

from typing import ClassVar

from nosana_operator.errors import Mismatch, NosanaError, NotFound, Refused, Unavailable


class ContentError(NosanaError):
    """IPFS refused, lied or cannot be reached."""

    retryable: ClassVar[bool] = False


class InvalidCid(ContentError, Refused):
    """The text or bytes are not a CID that this operator can use."""


class ContentUnreachable(ContentError, Unavailable):
    """No gateway gave a usable answer: whether the content exists is unknown.

    `seconds` is how long this attempt took over all gateways.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class ContentNotFound(ContentError, NotFound):
    """Every gateway answered and none has the content; it may still be on its way."""

    retryable: ClassVar[bool] = True


class ContentMismatch(ContentError, Mismatch):
    """Every gateway gave bytes that do not hash to the CID."""


class ContentMalformed(ContentError, Refused):
    """The bytes belong to the CID, but are a folder or no valid UnixFS file."""


class ContentTooLarge(ContentError, Refused):
    """The content is larger, or has more or deeper blocks, than allowed."""


class PinUnavailable(ContentError, Unavailable):
    """The pinning service could not be reached or failed: outcome unknown, pinning again is safe."""

    retryable: ClassVar[bool] = True


class PinRefused(ContentError, Refused):
    """The pinning service refused the request: credentials, quota or configuration."""


class PinMismatch(ContentError, Refused):
    """The pinning service stored something else than the exact bytes."""


class EndpointForbidden(ContentError, Refused):
    """An endpoint that a poster named and that is never asked."""


class EndpointFailed(ContentError, NotFound):
    """A poster's endpoint answered with a status that is no success; it may have another one later."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class EndpointUnreachable(ContentError, Unavailable):
    """A poster's endpoint gave no answer, or is busy: whether it took what it was given is unknown."""

    retryable: ClassVar[bool] = True
