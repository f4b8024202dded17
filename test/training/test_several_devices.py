"""Two processes train one network, and a full disk: what a run leaves behind."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.training.checkpoints import CarefulCheckpoints, DiskError  # noqa: E402
from siam_tracker_ros.training.config import load_config  # noqa: E402
from siam_tracker_ros.training.run import train  # noqa: E402
from siam_tracker_ros.training.tar_sets import DataError, held_out  # noqa: E402

CONFIG = """
network: {neck: {channels: 16}, matching: {hidden: 4}, head: {width: 16, depth: 1}}
pretrained: none
data: {sets: {reds: 1.0}, holdout_every: 3}
optimiser: {warmup_steps: 0, trainable: {late: 1}}
run: {epochs: 2, samples_per_epoch: 8, batch: 2, workers: 0, validation_samples: 2,
    checkpoint_every: 1, precision: 32-true}
"""

SEEN = """
import os, sys
from pathlib import Path
import torch.distributed
from siam_tracker_ros.training import run, samples
from siam_tracker_ros.training.config import load_config
make = samples.SampleSource.__call__
def noted(self, index):
    if self.seed == 1:
        with open(Path(sys.argv[2]) / f"seen{os.environ['RANK']}", "a") as stream:
            stream.write(f"{index} ")
    return make(self, index)
samples.SampleSource.__call__ = noted
run.train(load_config(Path(sys.argv[1])), Path(sys.argv[2]), progress=False)
state = torch.load(Path(sys.argv[2]) / "checkpoints" / "last.ckpt", weights_only=True)
assert state["global_step"] == 4, state["global_step"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, make_set):
    (tmp_path / "train").mkdir()
    boxes = [([40 + 3 * i, 50 + i, 60, 50], "clip" if i > 5 else None) for i in range(12)]
    make_set(tmp_path / "train" / "reds.tar", boxes)
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path


def without_presence(config):
    """Only the training: what is fitted behind it has its own tests."""
    run = {f: 0 for f in ("threshold_samples", "presence_clips") if hasattr(config.run, f)}
    return [f"run.{name}={value}" for name, value in run.items()]


@pytest.mark.once
def test_two_processes_see_different_samples_of_one_run(folder):
    changes = without_presence(load_config(folder / "small.yaml"))
    name = changes[0].removeprefix("run.").replace("=", ": ")
    (folder / "small.yaml").write_text(CONFIG.replace("run: {", f"run: {{{name}, "))
    (folder / "seen.py").write_text(SEEN)
    out = folder / "run"
    out.mkdir()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
    ]
    done = subprocess.run(
        [*command, str(folder / "seen.py"), str(folder / "small.yaml"), str(out)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [[int(i) for i in (out / f"seen{rank}").read_text().split()] for rank in (0, 1)]
    assert sorted(seen[0] + seen[1]) == list(range(16))
    assert seen[0] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert (out / "network.safetensors").is_file()
    (metrics,) = out.glob("metrics/**/metrics.csv")
    with metrics.open() as stream:
        losses = [float(row["val/loss"]) for row in csv.DictReader(stream) if row.get("val/loss")]
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)


def test_a_full_disk_leaves_the_last_checkpoint(folder, monkeypatch):
    config = load_config(folder / "small.yaml")
    config = load_config(folder / "small.yaml", without_presence(config))
    write = CarefulCheckpoints.save_checkpoint
    calls = []

    def full(self, checkpoint, path, storage_options=None):
        calls.append(path)
        if len(calls) == 3:
            monkeypatch.setattr("os.fsync", no_room)
        write(self, checkpoint, path)

    def no_room(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CarefulCheckpoints, "save_checkpoint", full)
    out = folder / "run"
    said = r"last\.ckpt: .*No space left on device; the last one is kept\. Make room and go on with --resume"
    with pytest.raises(DiskError, match=said):
        train(config, out, progress=False)
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["last.ckpt"]
    monkeypatch.undo()
    os.environ["SIAM_TRACKER_DATA"] = str(folder)
    try:
        train(config, out, resume=True, progress=False)
    finally:
        del os.environ["SIAM_TRACKER_DATA"]
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 8


def test_unreadable_images_are_left_out_and_written_down_or_stop_the_run(folder):
    changes = without_presence(load_config(folder / "small.yaml"))
    root = folder / "mine"
    (root / "images").mkdir(parents=True)
    import cv2
    import numpy as np

    rows = []
    bad = [i for i in range(8) if not held_out(f"images/{i}.jpg", 3)][:1]
    for i in range(8):
        image = np.full((200, 300, 3), 90 + i, np.uint8)
        image[50:100, 40:100] = (0, 0, 250)
        data = cv2.imencode(".jpg", image)[1].tobytes()
        (root / f"images/{i}.jpg").write_bytes(data[: len(data) // 2] if i in bad else data)
        thing = {"box": [40, 50, 60, 50], "category": "red", "track": None}
        rows.append({"image": f"images/{i}.jpg", "width": 300, "height": 200, "objects": [thing]})
    (root / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes += ["data.sets={mine: 1.0}", f"data.sources={{mine: 'folder:{root}'}}", "run.epochs=1"]
    with pytest.raises(DataError, match=r"images/\d\.jpg: a JPEG image that is cut off"):
        train(load_config(folder / "small.yaml", changes), folder / "a", progress=False)
    changes += ["data.on_error=skip"]
    with pytest.warns(UserWarning, match="left out: .*cut off"):
        train(load_config(folder / "small.yaml", changes), folder / "b", progress=False)
    written = (folder / "b" / "unreadable.txt").read_text().splitlines()
    assert written and all("cut off" in line for line in written)
    assert (folder / "b" / "network.safetensors").is_file()
