"""Follows one selected object through a camera's images, and says when it is lost."""

__version__ = "0.1.0"
