"""A template that takes in some of how the target looks now, and never forgets how it looked first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


class TemplateMix:
    """What the template graph made of the selected picture, and a running mean of later ones.

    ::

        mean     = newer                              the first time
        mean     = (1 - rate) mean + rate newer       then
        template = (1 - share) first + share mean

    A picture that shows something else can do no more harm than ``share`` allows, and is outgrown.

    Args:
        first: the constant states of a track by name, as its start left them.
    """

    def __init__(self, first: Mapping[str, npt.NDArray[Any]]) -> None:
        self._first = {name: np.array(value, np.float32) for name, value in first.items()}
        self._types = {name: value.dtype for name, value in first.items()}
        self._mean: Arrays | None = None

    def add(self, newer: Mapping[str, npt.NDArray[Any]], rate: float, share: float) -> Arrays:
        """Take ``newer`` in; return the template, in the dtypes of the first."""
        new = {name: np.array(newer[name], np.float32) for name in self._first}
        mean = self._mean
        if mean is not None:
            new = {name: (1 - rate) * mean[name] + rate * value for name, value in new.items()}
        self._mean = new
        return {
            name: ((1 - share) * first + share * new[name]).astype(self._types[name])
            for name, first in self._first.items()
        }
