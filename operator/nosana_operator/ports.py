"""Words that every Protocol of the loops shares."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]
"""A Kubernetes object as plain data."""
