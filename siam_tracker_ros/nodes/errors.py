"""What can be wrong with what others send."""

from __future__ import annotations


class ImageError(ValueError):
    """An image that cannot be read; the message says what is wrong with it, for people."""
