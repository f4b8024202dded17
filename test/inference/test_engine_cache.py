"""The engine cache: what it gives back, what it refuses, and that it is never left half-written."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_tensorrt import make_plan, make_tensorrt

from siam_tracker_ros.inference import BuildCancelledError, CacheError, EngineError, engine_cache
from siam_tracker_ros.inference.cuda import GpuIdentity, GpuInfo
from siam_tracker_ros.inference.engine_build import BuildOptions, BuiltEngine
from siam_tracker_ros.inference.engine_cache import KEEP, EngineCache, Entry, differences
from siam_tracker_ros.inference.engines import (
    build_engines,
    choose_precision,
    entry_of,
    find_engines,
    graph_file,
)

ROOT = Path(__file__).resolve().parents[2]
ENTRY = Entry(
    "tiny.search.fp16.GPU",
    {
        "graph_sha256": "ab" * 32,
        "tensorrt": "10.3.0",
        "gpu": {"name": "GPU", "compute_capability": "8.7", "multiprocessors": 16},
        "builder": {"precision": "fp16", "tf32": False},
    },
)
DATA = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def stored(cache):
    cache.store(ENTRY, DATA)
    return cache


def engine_file(cache, entry=ENTRY):
    return cache.folder / f"{entry.name}.engine"


def side_car(cache, entry=ENTRY):
    return cache.folder / f"{entry.name}.json"


def names(cache):
    return sorted(p.name for p in cache.folder.iterdir())


# --- finding --------------------------------------------------------------------------------------


def test_what_was_stored_is_found(stored):
    assert stored.load(ENTRY).data == DATA
    assert names(stored) == [f"{ENTRY.name}.engine", f"{ENTRY.name}.json"]
    assert {p.stat().st_mode & 0o777 for p in stored.folder.iterdir()} == {0o600}
    assert stored.folder.stat().st_mode & 0o777 == 0o700


def test_storing_again_replaces(stored):
    stored.store(ENTRY, b"newer")
    assert stored.load(ENTRY).data == b"newer"


def test_an_empty_cache_has_none(cache):
    assert cache.load(ENTRY) == engine_cache.Found(None, "there is none yet")


def changed(**parts):
    return replace(ENTRY, fingerprint={**ENTRY.fingerprint, **parts})


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (changed(tensorrt="10.7.0"), "tensorrt: 10.3.0, now 10.7.0"),
        (
            changed(gpu={**ENTRY.fingerprint["gpu"], "compute_capability": "9.0"}),
            "gpu.compute_capability: 8.7, now 9.0",
        ),
        (changed(gpu={**ENTRY.fingerprint["gpu"], "name": "Orin"}), "gpu.name: GPU, now Orin"),
        (changed(builder={"precision": "fp16", "tf32": True}), "builder.tf32: False, now True"),
        (changed(builder={"precision": "fp16", "tf32": 0}), "builder.tf32: False, now 0"),
        (changed(extra="x"), "extra: None, now x"),
    ],
)
def test_an_engine_for_something_else_is_not_given(stored, entry, what):
    found = stored.load(entry)
    assert found.data is None
    assert found.reason == f"it was built for something else: {what}"


def test_another_graph_has_another_file(stored):
    assert stored.load(changed(graph_sha256="cd" * 32)).reason == "there is none yet"


def test_differences_of_damaged_fingerprints():
    assert differences(None, {"a": 1}) == ["fingerprint is missing"]
    assert differences({"a": 1}, {"a": {"b": 1}}) == ["a. is missing"]
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}) == []


@pytest.mark.parametrize("keep", [0, 1, 100, len(DATA) - 1])
def test_a_truncated_engine_is_not_given(stored, keep):
    engine_file(stored).write_bytes(DATA[:keep])
    assert stored.load(ENTRY).reason == f"its file has {keep} bytes where {len(DATA)} were written"


def test_a_damaged_or_foreign_engine_is_not_given(stored):
    damaged = bytearray(DATA)
    damaged[5000] ^= 1
    engine_file(stored).write_bytes(damaged)
    assert stored.load(ENTRY).reason == "its file is damaged (wrong checksum)"
    engine_file(stored).write_bytes(DATA + b"more")
    assert "10244 bytes where 10240" in stored.load(ENTRY).reason
    engine_file(stored).unlink()
    assert stored.load(ENTRY).reason == "its file is missing"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": 1}', b"[" * 60000, b"x" * (1 << 17)],
)
def test_a_damaged_side_car_is_as_if_there_were_none(stored, content):
    side_car(stored).write_bytes(content)
    found = stored.load(ENTRY)
    assert found.data is None and found.reason
    stored.store(ENTRY, DATA)
    assert stored.load(ENTRY).data == DATA


def test_a_side_car_of_another_schema_is_as_if_there_were_none(stored):
    content = json.loads(side_car(stored).read_text())
    side_car(stored).write_text(json.dumps({**content, "schema": 2}))
    assert stored.load(ENTRY).reason == "its side-car is of another version"


# --- what others can write ------------------------------------------------------------------------


def test_a_file_that_others_can_write_is_not_read(stored):
    engine_file(stored).chmod(0o606)
    assert stored.load(ENTRY).reason == "its file cannot be used: everybody can write to it"
    engine_file(stored).chmod(0o600)
    side_car(stored).chmod(0o602)
    assert "side-car cannot be used: everybody can write" in stored.load(ENTRY).reason


def test_a_file_of_somebody_else_is_not_read(stored, monkeypatch):
    if os.geteuid() == 0:
        os.chown(engine_file(stored), 54321, -1)
        assert stored.load(ENTRY).reason == "its file cannot be used: it belongs to user 54321"
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
        assert "it belongs to" in stored.load(ENTRY).reason


def test_links_pipes_and_folders_are_not_read(stored, tmp_path):
    path = engine_file(stored)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert stored.load(ENTRY).reason == "its file cannot be used: it is a link"
    path.unlink()
    os.mkfifo(path)
    assert stored.load(ENTRY).reason == "its file cannot be used: it is not a file"
    path.unlink()
    path.mkdir()
    assert stored.load(ENTRY).data is None


def test_a_rebuild_replaces_a_link_and_not_what_it_leads_to(stored, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    engine_file(stored).unlink()
    engine_file(stored).symlink_to(precious)
    stored.store(ENTRY, DATA)
    assert precious.read_text() == "mine"
    assert stored.load(ENTRY).data == DATA


@pytest.mark.parametrize("which", ["folder", "above"])
def test_a_folder_that_others_can_write_is_refused(tmp_path, which):
    folder = tmp_path / "above" / "engines"
    folder.mkdir(parents=True)
    wide = folder if which == "folder" else folder.parent
    wide.chmod(0o777)
    with pytest.raises(CacheError) as caught:
        EngineCache(folder)
    assert f"engine cache {folder} is refused: {wide}: everybody can write to it" in str(
        caught.value
    )
    assert f"chmod go-w {wide}" in str(caught.value)
    wide.chmod(0o1777)
    if which == "above":
        EngineCache(folder)  # as in /tmp: nobody can rename what is another's
    else:
        with pytest.raises(CacheError, match="everybody can write"):
            EngineCache(folder)


def test_a_link_to_a_folder_that_others_can_write_is_refused(tmp_path):
    wide = tmp_path / "wide"
    wide.mkdir()
    wide.chmod(0o777)
    (tmp_path / "link").symlink_to(wide)
    with pytest.raises(CacheError, match=f"refused: {wide}"):
        EngineCache(tmp_path / "link")


def test_a_group_counts_as_others_unless_it_is_the_users_own(tmp_path, monkeypatch):
    folder = tmp_path / "engines"
    folder.mkdir()
    folder.chmod(0o770)
    monkeypatch.setattr(engine_cache, "_is_private_group", lambda group, user: False)
    with pytest.raises(CacheError, match=r"its group \(.*\) can write to it"):
        EngineCache(folder)
    monkeypatch.setattr(engine_cache, "_is_private_group", lambda group, user: True)
    EngineCache(folder)


def test_which_group_is_a_users_own(monkeypatch):
    groups = {
        1000: SimpleNamespace(gr_name="ann", gr_mem=[]),
        1001: SimpleNamespace(gr_name="ann", gr_mem=["ben"]),
        1002: SimpleNamespace(gr_name="staff", gr_mem=[]),
    }
    monkeypatch.setattr(grp, "getgrgid", groups.__getitem__)
    primary = {"gid": 1000}
    monkeypatch.setattr(
        pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="ann", pw_gid=primary["gid"])
    )
    assert engine_cache._is_private_group(1000, 5)
    assert not engine_cache._is_private_group(1002, 5)
    assert not engine_cache._is_private_group(4444, 5)
    primary["gid"] = 1001
    assert not engine_cache._is_private_group(1001, 5)
    assert engine_cache._is_private_group(0, 5)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CacheError, match=r"cannot be made: (Not a directory|File exists).*cache_dir"
    ):
        EngineCache(tmp_path / "file" / "engines")
    with pytest.raises(CacheError, match=r"cannot be made|not a folder"):
        EngineCache(tmp_path / "file")


@pytest.fixture
def not_root():
    """Root may write everywhere: be somebody else for the test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_folder_without_permission_is_said(tmp_path, request):
    (tmp_path / "closed").mkdir(mode=0o500)
    request.getfixturevalue("not_root")
    with pytest.raises(CacheError, match=r"cannot be made: Permission denied.*cache_dir"):
        EngineCache(tmp_path / "closed" / "engines")


def test_a_folder_that_lost_its_permission_is_said(cache, request):
    cache.folder.chmod(0o500)
    request.getfixturevalue("not_root")
    with pytest.raises(CacheError, match="Permission denied"):
        cache.store(ENTRY, DATA)
    with pytest.raises(CacheError, match="Permission denied"), cache.lock(ENTRY):
        pytest.fail("there can be no lock")


def test_the_users_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert engine_cache.default_folder() == Path("/somewhere/siam_tracker_ros/engines")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        folder = engine_cache.default_folder()
        assert folder == Path.home() / ".cache" / "siam_tracker_ros" / "engines"


# --- writing --------------------------------------------------------------------------------------


def full_disk(monkeypatch, after=0):
    """The ``after + 1``-th file that is synchronised does not fit any more."""
    calls = []
    real = os.fsync

    def fsync(handle):
        calls.append(handle)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_is_said_and_the_old_entry_stays(stored, monkeypatch):
    full_disk(monkeypatch)
    with pytest.raises(
        CacheError, match=r"cannot be written: No space left on device; .*cache_dir"
    ):
        stored.store(ENTRY, b"newer")
    monkeypatch.undo()
    assert stored.load(ENTRY).data == DATA
    assert names(stored) == [f"{ENTRY.name}.engine", f"{ENTRY.name}.json"]


def test_a_disk_that_fills_between_engine_and_side_car_leaves_nothing_wrong(stored, monkeypatch):
    full_disk(monkeypatch, after=2)  # engine, folder
    with pytest.raises(CacheError):
        stored.store(ENTRY, b"newer")
    monkeypatch.undo()
    found = stored.load(ENTRY)
    assert found.data is None and "bytes where" in found.reason
    assert not [n for n in names(stored) if n.endswith(".tmp")]
    stored.store(ENTRY, b"newer")
    assert stored.load(ENTRY).data == b"newer"


def test_too_little_space_is_said_before_anything_is_built(cache, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=1 << 20))
    with pytest.raises(CacheError, match=r"the disk is full: 10 MiB are free, 132 MiB are needed"):
        cache.require_space(100 << 20)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=900, f_frsize=1 << 20))
    cache.require_space(100 << 20)


def test_what_a_dead_writer_left_is_removed(stored):
    leftover = stored.folder / f".{ENTRY.name}.123.abc.tmp"
    other = stored.folder / ".other-0123.5.abc.tmp"
    for path in (leftover, other):
        path.write_bytes(b"half")
    stored.store(ENTRY, DATA)
    assert not leftover.exists() and other.exists()


def test_a_family_keeps_its_newest_entries(cache):
    entries = [changed(graph_sha256=f"{i:02x}" * 32) for i in range(KEEP + 3)]
    for age, entry in enumerate(reversed(entries)):
        cache.store(entry, DATA)
        os.utime(side_car(cache, entry), (1e9 - age, 1e9 - age))
    other = Entry("tiny.search.fp16.GPU-2", ENTRY.fingerprint)
    cache.store(other, DATA)
    cache.store(ENTRY, DATA)
    there = [e for e in entries if cache.load(e).data]
    assert there == entries[-(KEEP - 1) :]
    assert cache.load(ENTRY).data and cache.load(other).data


def test_discarding(stored):
    stored.discard(ENTRY)
    stored.discard(ENTRY)
    assert names(stored) == []


def test_readers_never_see_half_an_entry(cache):
    """A writer replaces the entry again and again while a reader looks."""
    versions = [bytes([i]) * (20000 + i) for i in range(40)]
    seen, wrong = set(), []
    ended = threading.Event()

    def read():
        while not ended.is_set():
            data = cache.load(ENTRY).data
            if data is not None:
                seen.add(data[0])
                if data != versions[data[0]]:
                    wrong.append(data[0])

    reader = threading.Thread(target=read)
    reader.start()
    for data in versions:
        cache.store(ENTRY, data)
        time.sleep(0.002)
    ended.set()
    reader.join()
    assert seen and not wrong


# --- locking --------------------------------------------------------------------------------------

HOLD = """
import sys
from siam_tracker_ros.inference.engine_cache import EngineCache, Entry
cache = EngineCache(sys.argv[1])
with cache.lock(Entry("tiny.search.fp16.GPU", {"graph_sha256": "ab" * 32})):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(cache):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(cache.folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_is_waited_for_and_ends_with_its_process(cache, holder):
    waited = []

    def told(who):
        waited.append(who)
        holder.kill()

    with cache.lock(ENTRY, told):
        assert waited == [f"process {holder.pid}"]


def test_waiting_can_be_cancelled(cache, holder):
    with (
        pytest.raises(BuildCancelledError, match="waiting for another process was cancelled"),
        cache.lock(ENTRY, cancelled=lambda: True),
    ):
        pytest.fail("the lock is held by another process")


def test_a_lock_file_that_is_a_link_is_refused(cache, tmp_path):
    (cache.folder / f"{ENTRY.name}.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(CacheError, match="cannot be opened"), cache.lock(ENTRY):
        pytest.fail("the link was followed")
    assert not (tmp_path / "victim").exists()


# --- a bundle's engines ---------------------------------------------------------------------------

GPU = GpuInfo(0, 0, GpuIdentity("Orin (nvgpu)", "8.7", 16), 1 << 33, True, "12.6")


class Builder:
    """Stands in for build_engine; counts."""

    def __init__(self):
        self.built = []
        self.timing = []

    def __call__(self, trt, onnx, options, *, name, timing_cache, on_progress, cancelled):
        self.built.append(name)
        self.timing.append(timing_cache)
        return BuiltEngine(make_plan(onnx, trt.__version__), b"TIMES")


def build(bundle, cache, builder, version="10.3.0", precision="fp32", gpu=GPU, **more):
    options = BuildOptions(precision)
    trt = make_tensorrt(version)
    return build_engines(bundle, options, cache, trt, gpu, build=builder, **more)


def test_engines_are_built_once(tiny, cache):
    bundle, builder = tiny(), Builder()
    said = []
    assert build(bundle, cache, builder, say=said.append) == {
        "template": "built",
        "search": "built",
    }
    assert build(bundle, cache, builder) == {"template": "there", "search": "there"}
    assert builder.built == ["tiny: template.onnx", "tiny: search.onnx"]
    assert builder.timing == [b"", b"TIMES"]  # measurements serve the next graph
    assert said[0].endswith("there is none yet")
    engines, missing = find_engines(bundle, BuildOptions(), cache, make_tensorrt("10.3.0"), GPU)
    assert engines["search"] == make_plan(bundle.read("search.onnx"), "10.3.0") and not missing


def test_an_upgrade_or_another_gpu_is_noticed(tiny, cache):
    bundle, builder = tiny(), Builder()
    build(bundle, cache, builder)
    trt = make_tensorrt("11.4.0")
    _, missing = find_engines(bundle, BuildOptions(), cache, trt, GPU)
    assert set(missing.values()) == {
        "it was built for something else: tensorrt: 10.3.0, now 11.4.0"
    }
    said = []
    assert build(bundle, cache, builder, "11.4.0", say=said.append)["search"] == "built"
    assert builder.timing[2] == b""  # what another version measured is not used
    assert "tensorrt: 10.3.0, now 11.4.0" in said[0]
    half = replace(GPU, identity=replace(GPU.identity, multiprocessors=8))
    _, missing = find_engines(bundle, BuildOptions(), cache, trt, half)
    assert "gpu.multiprocessors: 16, now 8" in missing["search"]


def test_new_thresholds_need_no_new_engine_but_new_weights_do(tiny, cache, parts):
    builder = Builder()
    build(tiny(), cache, builder)
    tuned = tiny(name="tuned", tuning={"window": 0.5, "penalty": 0.1, "size_rate": 0.9})
    trt = make_tensorrt("10.3.0")
    one, two = (entry_of(bundle, "search", BuildOptions(), trt, GPU) for bundle in (tiny(), tuned))
    assert one.fingerprint == two.fingerprint
    retrained = replace(
        tuned,
        files={**tuned.files, "search.onnx": replace(tuned.files["search.onnx"], sha256="0" * 64)},
    )
    assert entry_of(retrained, "search", BuildOptions(), trt, GPU).fingerprint != two.fingerprint


def test_a_build_that_cannot_be_stored_leaves_the_cache(tiny, cache, monkeypatch):
    bundle, builder = tiny(), Builder()
    build(bundle, cache, builder)
    before = {p.name: p.read_bytes() for p in cache.folder.iterdir() if p.suffix != ".lock"}
    full_disk(monkeypatch)
    with pytest.raises(CacheError, match="No space left"):
        build(bundle, cache, builder, force=True)
    monkeypatch.undo()
    after = {p.name: p.read_bytes() for p in cache.folder.iterdir() if p.suffix != ".lock"}
    assert after == before


def test_measurements_that_cannot_be_kept_do_not_fail_the_build(tiny, cache, monkeypatch):
    bundle, said = tiny(), []
    store = EngineCache.store

    def only_engines(self, entry, data):
        if entry.family.startswith("timing"):
            raise CacheError("the disk is full")
        store(self, entry, data)

    monkeypatch.setattr(EngineCache, "store", only_engines)
    assert build(bundle, cache, Builder(), say=said.append)["search"] == "built"
    assert "the builder's measurements were not kept: the disk is full" in said


def test_precisions(tiny, parts):
    plain = tiny()
    assert choose_precision(plain) == "fp32"
    with pytest.raises(EngineError, match=r"tiny has no fp16 graphs \(it has: fp32\)"):
        choose_precision(plain, "fp16")
    with pytest.raises(EngineError, match="unknown precision 'fp8': choose one of auto, fp32"):
        choose_precision(plain, "fp8")
    contents = {
        "template.onnx": parts["template"](),
        "search.onnx": parts["search"](),
        "template.fp16.onnx": parts["template"](),
        "search.fp16.onnx": parts["search"](),
    }
    files = {"template": "template.fp16.onnx", "search": "search.fp16.onnx"}
    typed = tiny(name="typed", contents=contents, precisions={"fp16": files})
    assert choose_precision(typed) == "fp16"
    assert choose_precision(typed, "fp32") == "fp32"
    assert graph_file(typed, "search", "fp16") == "search.fp16.onnx"
    assert graph_file(typed, "search", "fp32") == "search.onnx"


def test_names_of_files_hold_whatever_bundles_and_gpus_are_called(tiny, cache):
    gpu = replace(GPU, identity=replace(GPU.identity, name="../../NVIDIA \n" + "x" * 300))
    bundle = tiny(name="n" + "a" * 98)
    builder = Builder()
    assert build(bundle, cache, builder, gpu=gpu) == {"template": "built", "search": "built"}
    assert {p.parent for p in cache.folder.rglob("*")} == {cache.folder}
    assert build(bundle, cache, builder, gpu=gpu)["search"] == "there"
