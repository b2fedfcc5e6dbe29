"""Errors of starting and running the process.

SettingsError     the settings file is unusable
StartError        the cluster is not ready for the operator, or a port is taken
WatchEnded        the cluster is no longer watched in full
BackgroundFailed  a task that has to run for ever ended: the process ends with it
"""

from __future__ import annotations

from nosana_operator.errors import NosanaError


class SettingsError(NosanaError):
    """The settings file is unusable; the sentence names the field and what is allowed."""


class StartError(NosanaError):
    """The operator cannot start here; the sentence says what to change."""


class WatchEnded(NosanaError):
    """Some kind is not watched, or not any more: going on would be going by an old picture."""


class BackgroundFailed(NosanaError):
    """A part of the operator ended although it has to run for ever."""
