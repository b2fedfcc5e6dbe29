"""Which of the operator's processes acts."""

from __future__ import annotations


class AlwaysLeading:
    """Leadership of the only process there is: no Lease, and epoch 0 in every intent."""

    def check(self, seen: int = 0) -> int:
        """See `market.ports.Leadership`."""
        return 0
