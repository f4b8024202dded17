"""Built engines on disk: found again, checked before use, never half-written, closed to others.

An entry is two files: ``<name>.engine``, and beside it ``<name>.json`` with the fingerprint of what
the engine was built from and for, and the engine's size and SHA-256. Whatever does not agree is as
if it were not there; the reason is kept for the log. Both are written to a temporary file that is
then renamed: a reader sees an old entry or a new one, and a crash leaves the old one.

An engine is code for the GPU. A folder that others can write to is refused, and a file that others
could have written is not read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siam_tracker_ros.inference.errors import BuildCancelledError, CacheError

SCHEMA = 1
ENGINE, SIDE_CAR, LOCK, TEMPORARY = ".engine", ".json", ".lock", ".tmp"
KEEP = 4
"""So many entries of one family (a bundle's graph in one precision on one GPU) are kept."""

LEFT_FREE_BYTES = 32 << 20

_MAX_SIDE_CAR_BYTES = 1 << 16
_MAX_ENGINE_BYTES = 4 << 30
_WAIT_S = 0.2


@dataclass(frozen=True)
class Entry:
    """What an engine is called and what it must have been built from and for.

    ``family``: entries of which only the newest are kept, made of :func:`safe` parts.
    ``fingerprint``: plain data.
    """

    family: str
    fingerprint: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The file name without suffix: the same for the same graph, whatever else changed."""
        source = str(self.fingerprint.get("graph_sha256", ""))
        return f"{self.family}-{source[:12] or 'any'}"


@dataclass(frozen=True)
class Found:
    """What the cache has: the engine, or why there is none that may be used."""

    data: bytes | None
    reason: str = ""


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/siam_tracker_ros/engines``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "siam_tracker_ros" / "engines"


def safe(text: str) -> str:
    """Return ``text`` as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("._")[:60] or "unnamed"


class EngineCache:
    """A folder of engines.

    Args:
        folder: where; made if it is not there (only this user may enter it). None:
            :func:`default_folder`.

    Raises:
        CacheError: if it cannot be made or others can write there.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        given = Path(folder).expanduser() if folder else default_folder()
        try:
            given.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder = given.resolve(strict=True)
        except OSError as error:
            raise CacheError(
                f"engine cache {given}: cannot be made: {_text(error)}; choose another folder "
                "(cache_dir)"
            ) from error
        if not self.folder.is_dir():
            raise CacheError(f"engine cache {given}: is not a folder")
        _refuse_if_others_can_write(self.folder)

    def load(self, entry: Entry) -> Found:
        """Return an engine whose fingerprint, size and checksum are right, or why there is none."""
        try:
            raw = self._read(entry.name + SIDE_CAR, _MAX_SIDE_CAR_BYTES)
            side_car = json.loads(raw)
            if not isinstance(side_car, dict) or side_car.get("schema") != SCHEMA:
                return Found(None, "its side-car is of another version")
        except FileNotFoundError:
            return Found(None, "there is none yet")
        except (ValueError, RecursionError):
            return Found(None, "its side-car is damaged")
        except (OSError, CacheError) as error:
            return Found(None, f"its side-car cannot be used: {_text(error)}")
        changes = differences(side_car.get("fingerprint"), entry.fingerprint)
        if changes:
            return Found(None, f"it was built for something else: {'; '.join(changes)}")
        try:
            data = self._read(entry.name + ENGINE, _MAX_ENGINE_BYTES)
        except FileNotFoundError:
            return Found(None, "its file is missing")
        except (OSError, CacheError) as error:
            return Found(None, f"its file cannot be used: {_text(error)}")
        if len(data) != side_car.get("bytes"):
            return Found(
                None, f"its file has {len(data)} bytes where {side_car.get('bytes')} were written"
            )
        if hashlib.sha256(data).hexdigest() != side_car.get("sha256"):
            return Found(None, "its file is damaged (wrong checksum)")
        with contextlib.suppress(OSError):
            os.utime(self.folder / (entry.name + SIDE_CAR))  # in use: the oldest are removed first
        return Found(data)

    def store(self, entry: Entry, data: bytes) -> None:
        """Write an entry; an older one is replaced as a whole or stays as it was.

        Hold :meth:`lock` while calling this.

        Raises:
            CacheError: if it cannot be written (disk full, no permission).
        """
        side_car = {
            "schema": SCHEMA,
            "fingerprint": dict(entry.fingerprint),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        # A folder that cannot be tidied up is no error; one that cannot be written to tells so itself.
        with contextlib.suppress(OSError):
            self._remove_leftovers(entry)
        # Between the two renames the old side-car does not fit the new engine: a reader then sees
        # no entry, never a wrong one.
        self._write(entry.name, ENGINE, data)
        self._write(entry.name, SIDE_CAR, json.dumps(side_car, indent=1).encode() + b"\n")
        with contextlib.suppress(OSError):
            self._remove_oldest(entry)

    def discard(self, entry: Entry) -> None:
        """Remove an entry that turned out not to work; nothing happens if it is not there."""
        for suffix in (SIDE_CAR, ENGINE):
            with contextlib.suppress(OSError):
                (self.folder / (entry.name + suffix)).unlink()

    def require_space(self, size: int) -> None:
        """Check that about ``size`` bytes can be written, before minutes are spent on a build.

        Raises:
            CacheError: if not.
        """
        free = os.statvfs(self.folder)
        there = free.f_bavail * free.f_frsize
        if there < size + LEFT_FREE_BYTES:
            raise CacheError(
                f"engine cache {self.folder}: the disk is full: {there >> 20} MiB are free, "
                f"{(size + LEFT_FREE_BYTES) >> 20} MiB are needed; free some, or choose another "
                "folder (cache_dir)"
            )

    @contextlib.contextmanager
    def lock(
        self,
        entry: Entry,
        on_wait: Callable[[str], None] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[None]:
        """Hold the right to build an entry. It ends with the process, however that ends.

        Args:
            entry: what is to be built.
            on_wait: called once, with who holds it, if somebody else does.
            cancelled: asked while waiting.

        Raises:
            CacheError: if the lock's file cannot be opened.
            BuildCancelledError: if ``cancelled`` answered True.
        """
        path = self.folder / (entry.name + LOCK)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise CacheError(f"engine cache: {path} cannot be opened: {_text(error)}") from error
        try:
            told = False
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        raise CacheError(
                            f"engine cache: {path} cannot be locked: {_text(error)}"
                        ) from error
                if not told:
                    holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
                    on_wait(f"process {holder}" if holder.isdigit() else "another process")
                    told = True
                if cancelled():
                    raise BuildCancelledError("waiting for another process was cancelled")
                time.sleep(_WAIT_S)
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def _read(self, name: str, limit: int) -> bytes:
        """Read a file that only this user can have written.

        Raises:
            OSError, CacheError: if it cannot be read or must not be.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            handle = os.open(self.folder / name, flags)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise CacheError("it is a link") from error
            raise
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise CacheError("it is not a file")
            why = _others_can_write(status)
            if why:
                raise CacheError(why)
            if status.st_size > limit:
                raise CacheError(f"it has {status.st_size} bytes")
            return stream.read(limit)

    def _write(self, name: str, suffix: str, data: bytes) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}.{uuid.uuid4().hex}{TEMPORARY}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self.folder / (name + suffix))
            self._sync_folder()
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            hint = (
                f"; {len(data) >> 20} MiB were to be written: free some, or choose another folder "
                "(cache_dir)"
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else ""
            )
            raise CacheError(
                f"engine cache {self.folder}: cannot be written: {_text(error)}{hint}"
            ) from error

    def _sync_folder(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _remove_leftovers(self, entry: Entry) -> None:
        """Remove what writers of this entry left when they died: the lock is held, none lives."""
        for path in self.folder.glob(f".{entry.name}.*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _remove_oldest(self, entry: Entry) -> None:
        """Keep the newest entries of a family; engines of retrained bundles would pile up."""
        pattern = re.compile(re.escape(entry.family) + r"-[0-9a-z]{1,12}")
        entries = [
            path
            for path in self.folder.glob(f"*{SIDE_CAR}")
            if pattern.fullmatch(path.name[: -len(SIDE_CAR)])
        ]
        newest_first = sorted(entries, key=_modified, reverse=True)
        for path in newest_first[KEEP:]:
            stem = path.name[: -len(SIDE_CAR)]
            if stem != entry.name:
                # The lock's file stays: removing it would let two processes hold "the" lock.
                for suffix in (SIDE_CAR, ENGINE):
                    with contextlib.suppress(OSError):
                        (self.folder / (stem + suffix)).unlink()


def differences(have: Any, want: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say where a stored fingerprint is not the one that is wanted: "tensorrt: 8.6.2, now 10.3.0"."""
    if not isinstance(have, Mapping):
        return [f"{prefix or 'fingerprint'} is missing"]
    said = []
    for key in sorted({*have, *want}):
        old, new = have.get(key), want.get(key)
        if isinstance(new, Mapping):
            said += differences(old, new, f"{prefix}{key}.")
        elif old != new or type(old) is not type(new):
            said.append(f"{prefix}{key}: {str(old)[:80]}, now {str(new)[:80]}")
    return said


def _refuse_if_others_can_write(folder: Path) -> None:
    """Check a folder and all above it: who can rename one of them can put another in its place.

    Raises:
        CacheError: naming the folder and what to do.
    """
    for path in (folder, *folder.parents):
        try:
            status = os.stat(path)
        except OSError as error:
            raise CacheError(f"engine cache {folder}: {path}: {_text(error)}") from error
        # In a folder with the sticky bit, such as /tmp, nobody can rename what is another's.
        if path != folder and status.st_mode & stat.S_ISVTX:
            continue
        why = _others_can_write(status)
        if why:
            raise CacheError(
                f"engine cache {folder} is refused: {path}: {why}; engines are code. "
                f"Run chmod go-w {path}, or choose another folder (cache_dir)"
            )


def _others_can_write(status: os.stat_result) -> str:
    """Say how somebody else could have written this; nothing if only this user (or root) could."""
    me = os.geteuid()
    if status.st_uid not in (me, 0):
        return f"it belongs to {_user(status.st_uid)}"
    if status.st_mode & stat.S_IWOTH:
        return "everybody can write to it"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid, me):
        return f"its group ({_group(status.st_gid)}) can write to it"
    return ""


def _is_private_group(group: int, user: int) -> bool:
    """Whether a group is this user's own, without other members (root's, or Ubuntu's scheme)."""
    if group == 0:
        return True
    try:
        entry, owner = grp.getgrgid(group), pwd.getpwuid(user)
    except KeyError:
        return False
    return (
        owner.pw_gid == group
        and entry.gr_name == owner.pw_name
        and set(entry.gr_mem) <= {owner.pw_name}
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _text(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
