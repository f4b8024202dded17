"""Where the data are: the one place that reads SIAM_TRACKER_DATA."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SIAM_TRACKER_DATA"


def data_root() -> Path | None:
    """Return the data folder, or None where there is none.

    ``SIAM_TRACKER_DATA`` names it; without the variable it is ``shared/data`` beside the
    repository, if that exists.

    Raises:
        FileNotFoundError: if the variable is set and names no folder.
    """
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{VARIABLE} is {named!r}, which is not a folder")
        return folder
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return beside if beside.is_dir() else None


def require_data(part: str) -> Path:
    """Return the folder (or file) ``part`` of the data folder.

    Raises:
        FileNotFoundError: if there is no data folder or ``part`` is not in it; says what to set.
    """
    root = data_root()
    if root is None:
        raise FileNotFoundError(f"no data folder: set {VARIABLE} to the folder that holds {part}/")
    if not (root / part).exists():
        raise FileNotFoundError(f"{part} is not in {root} (the folder that {VARIABLE} names)")
    return root / part
