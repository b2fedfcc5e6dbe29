"""What can be wrong with the chart."""

from __future__ import annotations

from nosana_operator.errors import NosanaError


class RenderError(NosanaError):
    """Helm does not render the chart; the text is Helm's own."""


class UndocumentedValue(NosanaError):
    """A key of values.yaml has no comment, and is no group of keys that have one."""
