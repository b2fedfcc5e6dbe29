"""Errors of starting and running the process.

SettingsError     the settings file is unusable
StartError        the cluster is not ready for the operator, or a port is taken
WatchEnded        a watch ended, or a kind is no longer served
BackgroundFailed  a background task ended; the process ends with it
"""

from __future__ import annotations

from nosana_operator.errors import NosanaError


class SettingsError(NosanaError):
    """The settings file is unusable; the message names the field and what is allowed."""


class StartError(NosanaError):
    """The operator cannot start here; the message says what to change."""


class WatchEnded(NosanaError):
    """A kind is not watched, or no longer: to continue would mean to act on stale objects."""


class BackgroundFailed(NosanaError):
    """A background task ended although it must run until it is cancelled."""
