#!/usr/bin/env python3
"""Pack what a bare GPU machine needs into folders that are sent one by one (see docs/gpu.md).

    scripts/gpu/pack.py --prepared out/gpu/prepared --kit KIT --wheel WHEEL... --part-mib 30

KIT: a folder with part.00, part.01, ... and manifest.json (TensorRT with a Python of its own), cut
by the tool that made it into parts of at most --part-mib. Each WHEEL is unpacked beside the prepared
folder: PyYAML, which the program needs, and OpenCV and timm, which it can do without.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepared", type=Path, default=Path("out/gpu/prepared"))
    parser.add_argument("--kit", type=Path, help="without: the extras alone")
    parser.add_argument("--wheel", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("out/gpu/send"))
    parser.add_argument("--part-mib", type=float, help="at most so much a folder")
    parser.add_argument("--level", type=int, default=6, help="of xz")
    given = parser.parse_args()
    room = room_mib() if given.part_mib is None else given.part_mib
    if room < 1:
        sys.exit(f"pack.py: the working tree leaves {room:.0f} MiB of a call's 64")
    if not (given.prepared / "prepared.json").is_file():
        sys.exit(f"pack.py: {given.prepared} is not what siam-tracker gpu-prepare made")
    if given.out.exists() and not (given.out / "parts.json").is_file() and any(given.out.iterdir()):
        sys.exit(f"pack.py: {given.out} is there and was not made by this: it is not replaced")
    kit = kit_parts(given.kit, room)
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    (given.out / "parts.json").write_text("[]\n")  # marks it as ours, should this be stopped
    files = [*pack_extras(given, room), *kit]
    # What is small shares a folder: each one is a call.
    folders: list[list[Path]] = []
    for file in files:
        if folders and sum(f.stat().st_size for f in (*folders[-1], file)) <= room * 2**20:
            folders[-1].append(file)
        else:
            folders.append([file])
    listing = []
    for index, content in enumerate(folders):
        folder = given.out / f"{index:02d}"
        folder.mkdir()
        for file in content:
            target = folder / file.name
            if file.parent == given.out:
                file.rename(target)
            else:
                shutil.copyfile(file, target)
            listing.append({"name": file.name, "folder": folder.name, "sha256": digest(target)})
    (given.out / "parts.json").write_text(json.dumps(listing, indent=1) + "\n")
    shutil.copyfile(given.out / "parts.json", given.out / "00" / "parts.json")
    total = sum(f.stat().st_size for f in given.out.rglob("*") if f.is_file())
    print(f"{given.out}: {len(folders)} folders, {total / 2**20:.0f} MiB")
    return 0


def room_mib() -> float:
    """What a call of 64 MiB has beside the repository's own files, with a margin."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    ).stdout.split(b"\0")
    sizes = (Path(n.decode()).stat().st_size for n in names if n and Path(n.decode()).is_file())
    return 64 - sum(sizes) / 2**20 - 2


def pack_extras(given: argparse.Namespace, room: float) -> list[Path]:
    """One archive of the prepared folder and the wheels' contents, cut into parts."""
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        for wheel in given.wheel:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        tar = Path(scratch) / "extras.tar"
        with tarfile.open(tar, "w") as archive:
            for name in ("prepared.json", "bundles", "recordings", "walks", "clips", "products"):
                if (given.prepared / name).exists():
                    archive.add(given.prepared / name, f"prepared/{name}")
            if site.exists():
                archive.add(site, "site")
        subprocess.run(["xz", f"-{given.level}", "-T0", str(tar)], check=True)
        data = tar.with_suffix(".tar.xz").read_bytes()
    size = int(room * 2**20)
    made = []
    for index, start in enumerate(range(0, len(data), size)):
        made.append(given.out / f"extras.{index:02d}")
        made[-1].write_bytes(data[start : start + size])
    return made


def kit_parts(kit: Path | None, room: float) -> list[Path]:
    if kit is None:
        return []
    parts = sorted(kit.glob("part.*"))
    for part in parts:
        if part.stat().st_size > room * 2**20:
            sys.exit(
                f"pack.py: {part} has {part.stat().st_size / 2**20:.0f} MiB; {room:.0f} MiB are "
                "left of a call: cut the kit into smaller parts"
            )
    if not parts or not (kit / "manifest.json").is_file() or not (kit / "unpack.py").is_file():
        sys.exit(f"pack.py: {kit} is no kit: part.NN, manifest.json and unpack.py are wanted")
    return [kit / "unpack.py", kit / "manifest.json", *parts]


def digest(file: Path) -> str:
    with open(file, "rb") as stream:
        found = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
