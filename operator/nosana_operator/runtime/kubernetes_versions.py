"""Which versions of Kubernetes the operator runs on, and the look at the cluster's at the start."""

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
"""Selectable fields of CRDs, and what our objects name, are there from here on."""
NEWEST_VALIDATED: Final = (1, 37)
"""Objects are validated up to here; on newer ones nothing is known to be wrong."""

_AGAIN_SECONDS: Final = 2.0


def version_problem(version: ServerVersion) -> str | None:
    """Why the operator does not run on it, as a sentence with the remedy; None when it does."""
    if (version.major, version.minor) >= OLDEST:
        return None
    needed = f"{OLDEST[0]}.{OLDEST[1]}"
    return f"Kubernetes {version.text} is not supported: {needed} or newer is needed; upgrade the cluster."


async def require_supported(
    read_path: Callable[[str], Awaitable[bytes]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Return when the cluster's version is supported; wait while it cannot be known.

    Raises StartError for one that is too old.
    """
    while True:
        try:
            version = read_version(await read_path("/version"))
        except Unavailable as error:
            log.warning("The version of Kubernetes is not known yet: %s", error)
            await sleep(_AGAIN_SECONDS)
        except Refused as error:
            # Somebody took the right that everybody has by default; that is no reason to serve nobody.
            log.warning("The version of Kubernetes cannot be read, it has to be 1.31 or newer: %s", error)
            return
        else:
            problem = version_problem(version)
            if problem is not None:
                raise StartError(problem)
            return
