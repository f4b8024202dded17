"""Where bundles are looked for."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from siam_tracker_ros.bundle.types import BUNDLE_FILE, BundleError

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def default_search_path() -> list[Path]:
    """Return the folders that hold bundles, first match first.

    The package's share in every prefix of AMENT_PREFIX_PATH (what ROS's own index does, without
    needing ROS), ``models`` of the checkout this code runs from,
    ``~/.local/share/siam_tracker_ros/models``.
    """
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders = [Path(prefix) / "share" / "siam_tracker_ros" / "models" for prefix in prefixes]
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "package.xml").is_file():
        folders.append(checkout / "models")
    folders.append(Path.home() / ".local" / "share" / "siam_tracker_ros" / "models")
    return list(dict.fromkeys(folders))


def find_bundle(
    name_or_path: str | os.PathLike[str], search_path: Sequence[Path] | None = None
) -> Path:
    """Return the folder of a bundle.

    Args:
        name_or_path: a bundle's name, or a path: a ``Path``, or a text that has a "/" or starts
            with "." or "~". The path may also be that of the bundle.yaml itself.
        search_path: folders that hold bundles; :func:`default_search_path` if None.

    Raises:
        BundleError: if there is none; the message lists where it was looked for and what is there.
    """
    text = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or os.sep in text or text.startswith((".", "~")):
        folder = Path(text).expanduser()
        if folder.name == BUNDLE_FILE:
            folder = folder.parent
        if not (folder / BUNDLE_FILE).is_file():
            what = "there is no such folder" if not folder.is_dir() else f"has no {BUNDLE_FILE}"
            raise BundleError(f"{folder}: not a model bundle: {what}")
        return folder
    if not NAME_PATTERN.fullmatch(text):
        raise BundleError(
            f"{text!r} is not a bundle's name; "
            "give a name such as siam_stm_lite0, or a path with a '/'"
        )
    folders = default_search_path() if search_path is None else list(search_path)
    for folder in folders:
        if (folder / text / BUNDLE_FILE).is_file():
            return folder / text
    looked = "\n".join(f"  {folder}: {_content(folder)}" for folder in folders)
    hint = f"\nA folder ./{text} is here: to use it write ./{text}" if Path(text).is_dir() else ""
    raise BundleError(f"no model bundle called {text!r}. Looked in:\n{looked}{hint}")


def _content(folder: Path) -> str:
    """Say which bundles a folder holds."""
    try:
        names = sorted(p.name for p in folder.iterdir() if (p / BUNDLE_FILE).is_file())
    except FileNotFoundError:
        return "(no such folder)"
    except OSError as error:
        return f"(cannot be read: {os.strerror(error.errno or 0)})"
    return ", ".join(names) if names else "(no bundles)"
