"""Which versions of Kubernetes the operator supports, and the check of the cluster's version at the start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from nosana_operator.errors import Refused, Unavailable
from nosana_operator.kube.server import ServerVersion, read_version
from nosana_operator.runtime.errors import StartError

log = logging.getLogger(__name__)

OLDEST: Final = (1, 31)
"""The first version with selectable fields of CRDs and with every field that our objects use."""
NEWEST_VALIDATED: Final = (1, 37)
"""The newest version against whose schemas our objects are validated. Newer ones are not refused."""

_AGAIN_SECONDS: Final = 2.0


def version_problem(version: ServerVersion) -> str | None:
    """Why the operator does not run on this version, with the remedy; None when it does."""
    if (version.major, version.minor) >= OLDEST:
        return None
    needed = f"{OLDEST[0]}.{OLDEST[1]}"
    return f"Kubernetes {version.text} is not supported: {needed} or newer is needed; upgrade the cluster."


async def require_supported(
    read_path: Callable[[str], Awaitable[bytes]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Return when the cluster's version is supported; wait while the API server does not answer.

    Raises StartError when the version is too old.
    """
    while True:
        try:
            version = read_version(await read_path("/version"))
        except Unavailable as error:
            log.warning("The version of Kubernetes is not known yet: %s", error)
            await sleep(_AGAIN_SECONDS)
        except Refused as error:
            # Somebody removed a right that everybody has by default; that is no reason not to start.
            log.warning("The version of Kubernetes cannot be read, it has to be 1.31 or newer: %s", error)
            return
        else:
            problem = version_problem(version)
            if problem is not None:
                raise StartError(problem)
            return
