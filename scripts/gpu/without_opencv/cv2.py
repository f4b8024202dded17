"""Stands in for OpenCV where there is none: what needs no picture works, what needs one says so."""

from __future__ import annotations

from typing import Any

__version__ = "none"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"OpenCV is not here (cv2.{name} was asked for)")
