"""The root of the error tree; each room grows its own branch below it.

    NosanaError
    ├── DefinitionError     definition: a job definition is unusable
    ├── ApiError            api: a NosanaJob or NosanaMarket is unusable
    ├── KubeError           kube: the Kubernetes API refused or cannot be reached
    ├── ChainError          chain: Solana refused or cannot be reached
    ├── ContentError        content: IPFS refused or cannot be reached
    └── SettingsError       runtime: the operator's settings are unusable
"""

from __future__ import annotations


class NosanaError(Exception):
    """Anything this program raises on purpose. `str()` is one sentence for a person, with the remedy."""
