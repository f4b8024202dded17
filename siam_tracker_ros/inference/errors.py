"""What goes wrong with a back end."""

from __future__ import annotations


class BackendError(RuntimeError):
    """A back end that is not there, does not fit the bundle, or failed."""
