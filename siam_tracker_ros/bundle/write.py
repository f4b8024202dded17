"""Writing a bundle: all of it or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from siam_tracker_ros.bundle.load import load_bundle
from siam_tracker_ros.bundle.schema import bundle_data, dump_yaml
from siam_tracker_ros.bundle.types import (
    BUNDLE_FILE,
    Bundle,
    BundleError,
    FileEntry,
    GraphSpec,
    PresenceSpec,
)
from siam_tracker_ros.geometry import CropSpec

Content = bytes | str | Path
"""What a file shall hold: bytes, text, or the path of a file to copy."""

DOCUMENTS = ("README.md", "LICENSE", "parity.json")
"""Files beside the graphs that have no checksum: they may be corrected without a new bundle."""


def write_bundle(
    folder: str | os.PathLike[str],
    *,
    name: str,
    tracker: str,
    crop: CropSpec,
    graphs: Mapping[str, GraphSpec],
    tuning: Mapping[str, float],
    presence: PresenceSpec,
    contents: Mapping[str, Content],
    precisions: Mapping[str, Mapping[str, str]] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle folder, with checksums, and return the bundle as loaded from it.

    It is built and checked in a folder beside ``folder`` and put in place by renaming; a bundle
    that was there before is replaced, and stays as it was if anything fails.

    Args:
        folder: the bundle's folder; its parent is made where needed.
        name: the bundle's name.
        tracker: the kind of tracker, for example siam_stm.
        crop: crop sizes.
        graphs: ``template`` and ``search``.
        tuning: defaults of the tuning values.
        presence: the presence model.
        contents: every file by its name in the bundle; all but README.md, LICENSE and parity.json
            get a checksum.
        precisions: graphs in other precisions, for example
            {"fp16": {"template": "template.fp16.onnx", "search": "search.fp16.onnx"}}.
        provenance: where it comes from: config, data_manifest, revision, command, metrics,
            teachers.

    Raises:
        BundleError: if the parts do not make a valid bundle, or ``folder`` holds something else.
        OSError: if it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or not _replaceable(folder)):
        raise BundleError(f"{folder}: is there and is not a model bundle: it is not replaced")
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new = workshop / "new"
        new.mkdir()
        files = {}
        for file, content in contents.items():
            path = new / file
            if new.resolve() not in path.resolve().parents or file == BUNDLE_FILE:
                raise BundleError(f"{file!r} is no name for a file of a bundle")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            if file not in DOCUMENTS:
                files[file] = _entry(path)
        bundle = Bundle(
            path=new,
            name=name,
            tracker=tracker,
            crop=crop,
            graphs=graphs,
            tuning={key: float(value) for key, value in tuning.items()},
            presence=presence,
            precisions=precisions or {},
            files=files,
            provenance=provenance or {},
        )
        (new / BUNDLE_FILE).write_text(dump_yaml(bundle_data(bundle)), encoding="utf-8")
        loaded = load_bundle(new)
        _sync(new)
        if folder.exists():
            os.rename(folder, workshop / "old")
            try:
                os.rename(new, folder)
            except OSError:
                os.rename(workshop / "old", folder)
                raise
        else:
            os.rename(new, folder)
        return replace(loaded, path=folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _replaceable(folder: Path) -> bool:
    """Tell whether a folder is a bundle, or empty."""
    return (folder / BUNDLE_FILE).is_file() or not any(folder.iterdir())


def _entry(path: Path) -> FileEntry:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return FileEntry(digest.hexdigest(), path.stat().st_size)


def _sync(folder: Path) -> None:
    """Have the files on the disk before the rename makes them visible."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
