"""Loading: nothing is believed before it is checked, nothing large is read before it is sized."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from siam_tracker_ros.bundle.find import find_bundle
from siam_tracker_ros.bundle.schema import parse_bundle, parse_yaml
from siam_tracker_ros.bundle.types import (
    BUNDLE_FILE,
    MAX_BUNDLE_FILE_BYTES,
    Bundle,
    BundleError,
    FileEntry,
)


def load_bundle(
    name_or_path: str | os.PathLike[str], search_path: Sequence[Path] | None = None
) -> Bundle:
    """Find, read and check a bundle: schema, graph contract, size and checksum of every file.

    Args:
        name_or_path: see :func:`find_bundle`.
        search_path: see :func:`find_bundle`.

    Raises:
        BundleError: naming file and field.
    """
    folder = find_bundle(name_or_path, search_path)
    where = folder / BUNDLE_FILE
    size = _regular_size(where)
    if size > MAX_BUNDLE_FILE_BYTES:
        raise BundleError(f"{where}: {size} bytes, at most {MAX_BUNDLE_FILE_BYTES} are read")
    try:
        with open(where, "rb") as stream:
            raw = stream.read(MAX_BUNDLE_FILE_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise BundleError(f"{where}: cannot be read: {os.strerror(error.errno or 0)}") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: not UTF-8 text") from error
    bundle = parse_bundle(parse_yaml(text, where), where)
    for name, entry in bundle.files.items():
        _check_file(folder, where, name, entry)
    return replace(bundle, fingerprint=hashlib.sha256(raw).hexdigest())


def _check_file(folder: Path, where: Path, name: str, entry: FileEntry) -> None:
    """Check that a listed file lies in the bundle and is what the list says."""
    path = folder / name
    # `colcon build --symlink-install` links every file of a bundle, bundle.yaml among them, to the
    # same place.
    homes = (folder.resolve(), where.resolve().parent)
    real = path.resolve()
    if not any(home in real.parents for home in homes):
        raise BundleError(f"{where}: files.{name}: leads out of the bundle's folder, to {real}")
    size = _regular_size(path, f"{where}: files.{name}")
    if size != entry.bytes:
        raise BundleError(
            f"{where}: files.{name}: {path.name} has {size} bytes where {entry.bytes} are listed "
            "(an incomplete copy, or a Git LFS pointer?)"
        )
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise BundleError(
            f"{where}: files.{name}: cannot be read: {os.strerror(error.errno or 0)}"
        ) from error
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{where}: files.{name}: wrong checksum: sha256 {digest.hexdigest()} where "
            f"{entry.sha256} is listed; copy the bundle again"
        )


def _regular_size(path: Path, label: str | None = None) -> int:
    """Return the size of a regular file (opening a pipe or device could block for ever)."""
    label = str(path) if label is None else label
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise BundleError(f"{label}: the file is missing") from error
    except OSError as error:
        raise BundleError(f"{label}: cannot be read: {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{label}: is not a file")
    return status.st_size
