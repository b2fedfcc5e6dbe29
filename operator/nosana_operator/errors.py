"""The root of the error tree; each package adds its own branch below it.

    NosanaError
    ├── Unavailable         no answer: the outcome is UNKNOWN; read again, never guess
    ├── NotFound            there is no such object (an answer, not silence)
    ├── Conflict            another writer came first: gather again, decide again
    ├── Refused             the other side said no, and will say no to the same request again
    │   └── Mismatch        the content is provably not what was requested
    ├── DefinitionError     definition: a job definition is unusable
    ├── ApiError            api: a NosanaJob or NosanaMarket is unusable
    ├── KubeError           kube: branch of the Kubernetes API
    ├── ChainError          chain: branch of Solana
    ├── ContentError        content: branch of IPFS
    └── SettingsError       runtime: the operator's settings are unusable

`jobs` and `market` may not import the edges. They catch the four outcomes; an edge's own errors inherit from its
branch and from the outcome that they mean (`class KubeNotFound(KubeError, NotFound)`).
"""

from __future__ import annotations


class NosanaError(Exception):
    """Any error that this program raises on purpose. `str()` is one sentence for a person, with the remedy."""


class Unavailable(NosanaError):
    """No answer, or one that says nothing about the outcome (timeout, 429, 5xx, broken connection)."""


class NotFound(NosanaError):
    """The other side answered that there is no such object."""


class Conflict(NosanaError):
    """A compare-and-swap failed, or the object exists already; the decision was made from stale data."""


class Refused(NosanaError):
    """The other side said no (invalid, forbidden); it will refuse the same request again."""


class Mismatch(Refused):
    """The content is provably not what was requested (its hash differs); it is never used."""
