"""Errors of this package: the `ContentError` branch of the error tree.

    ContentError
    ├── InvalidCid           not a CID, or a kind of CID that is not supported (Refused)
    ├── ContentUnreachable   a gateway gave no usable response: unknown, retry (Unavailable)
    ├── ContentNotFound      all gateways responded, none has it (yet): retry (NotFound)
    ├── ContentMismatch      the bytes of every gateway hash to another CID (Mismatch)
    ├── ContentMalformed     the bytes match the CID, but are not a file (Refused)
    ├── ContentTooLarge      larger than the limit (Refused)
    ├── PinUnavailable       the pin service gave no usable response: retry (Unavailable)
    ├── PinRefused           the pin service refused credentials, quota or request (Refused)
    ├── PinMismatch          the pin service returned a CID that the bytes do not have (Refused)
    ├── EndpointForbidden    a poster's endpoint that may not be requested (Refused)
    ├── EndpointFailed       a poster's endpoint responded with an error status (NotFound)
    └── EndpointUnreachable  a poster's endpoint did not respond: unknown, retry (Unavailable)

`retryable`: whether the same call can succeed later with the same settings.
"""

from __future__ import annotations

from typing import ClassVar

from nosana_operator.errors import Mismatch, NosanaError, NotFound, Refused, Unavailable


class ContentError(NosanaError):
    """Base class of this package's errors."""

    retryable: ClassVar[bool] = False


class InvalidCid(ContentError, Refused):
    """The text or bytes are not a CID, or a kind of CID that is not supported."""


class ContentUnreachable(ContentError, Unavailable):
    """No gateway gave a usable response: whether the content exists is unknown.

    `seconds` is how long the attempt took over all gateways.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class ContentNotFound(ContentError, NotFound):
    """Every gateway responded and none has the content; it may become available later."""

    retryable: ClassVar[bool] = True


class ContentMismatch(ContentError, Mismatch):
    """Every gateway returned bytes that do not hash to the CID."""


class ContentMalformed(ContentError, Refused):
    """The bytes hash to the CID, but are a folder or not a valid UnixFS file."""


class ContentTooLarge(ContentError, Refused):
    """The content exceeds the limit for bytes, blocks or depth."""


class PinUnavailable(ContentError, Unavailable):
    """The pin service could not be reached or failed: the outcome is unknown; pinning again is safe."""

    retryable: ClassVar[bool] = True


class PinRefused(ContentError, Refused):
    """The pin service refused the request because of credentials, quota or configuration."""


class PinMismatch(ContentError, Refused):
    """The pin service did not store the exact bytes."""


class EndpointForbidden(ContentError, Refused):
    """A poster's endpoint that may not be requested."""


class EndpointFailed(ContentError, NotFound):
    """A poster's endpoint responded with an error status; a later request may succeed."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class EndpointUnreachable(ContentError, Unavailable):
    """A poster's endpoint did not respond or is busy: whether it accepted the request is unknown."""

    retryable: ClassVar[bool] = True
