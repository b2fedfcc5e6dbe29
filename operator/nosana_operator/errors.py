"""The root of the error tree; each room grows its own branch below it.

    NosanaError
    ├── Unavailable         an edge gave no answer: the outcome is UNKNOWN; look again, never guess
    ├── NotFound            the thing asked for is not there (an answer, not silence)
    ├── Conflict            somebody else changed it first: gather again, decide again
    ├── Refused             the other side said no, and will say no again for the same request
    │   └── Mismatch        what came is provably not what was asked for
    ├── DefinitionError     definition: a job definition is unusable
    ├── ApiError            api: a NosanaJob or NosanaMarket is unusable
    ├── KubeError           kube: branch of the Kubernetes API
    ├── ChainError          chain: branch of Solana
    ├── ContentError        content: branch of IPFS
    └── SettingsError       runtime: the operator's settings are unusable

The domain rooms (`jobs`, `market`) may not import the edges. They catch the four outcomes; an edge's own
errors inherit from its branch and from the outcome they mean (`class KubeNotFound(KubeError, NotFound)`).
"""

from __future__ import annotations


class NosanaError(Exception):
    """Anything this program raises on purpose. `str()` is one sentence for a person, with the remedy."""


class Unavailable(NosanaError):
    """No answer, or one that says nothing about the outcome (time-out, 429, 5xx, broken connection)."""


class NotFound(NosanaError):
    """The other side answered: there is no such thing."""


class Conflict(NosanaError):
    """A compare-and-swap lost, or the object exists already; what was decided is stale."""


class Refused(NosanaError):
    """The other side answered no (invalid, forbidden); the same request will be refused again."""


class Mismatch(Refused):
    """What came is provably not what was asked for (its hash says so), and is never used."""
