"""One program for a GPU machine: ``python -m siam_tracker_ros.evaluation.gpu_benchmark PREPARED``.

Needs NumPy, PyYAML, the TensorRT bindings and the driver; with OpenCV whole clips are followed too,
and with another Python that has torch (``--torch-python``) the same networks are timed in it.

Every part runs in a process of its own, so that one that crashes, hangs or fails is a result like
any other. Whatever is known is written after each part. A part that is complete is not run again by
a second call with the same ``--work``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.evaluation import gpu_speed
from siam_tracker_ros.evaluation.agreement import compare_trajectories, follow, load_steps
from siam_tracker_ros.evaluation.gpu_inputs import (
    Prepared,
    PreparedError,
    load_clip,
    load_walks,
    read_prepared,
)
from siam_tracker_ros.evaluation.gpu_report import gpu_table
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.inference import BackendError

MODULE = "siam_tracker_ros.evaluation.gpu_benchmark"
TORCH_MODULE = "siam_tracker_ros.deployment.torch_speed"
RESULTS, TABLE = "gpu.json", "gpu.md"
OK, SOME_FAILED, WRONG_INPUT, NO_GPU = 0, 1, 2, 3

LEAST_S = 20.0
"""With less time left, no part is begun."""

_KEPT_LINES = 12


@dataclass(frozen=True)
class Part:
    """Something measured by a process of its own: its name and the most seconds that it may take."""

    name: str
    limit_s: float = 300.0


@dataclass(frozen=True)
class Settings:
    """How a run is made."""

    prepared: Path
    out: Path
    work: Path
    minutes: float
    steps: int
    copy_bytes: int = gpu_speed.COPY_BYTES
    torch_python: str | None = None


Spawn = Callable[[list[str], float], tuple[int, str]]
"""Runs a command for at most so many seconds: exit status (negative: signal), and its last lines."""


def parts_of(prepared: Prepared, with_torch: bool) -> list[Part]:
    """Return the parts in the order in which a lease should spend its minutes."""
    parts = [Part("copy", 60), Part("product-fp16", 120)]
    lights = [name for name, entry in prepared.bundles.items() if entry["light"]]
    papers = [name for name in prepared.bundles if name not in lights]
    parts += [Part(f"{name}-fp16") for name in (*lights, *papers)]
    if with_torch:
        parts += [Part(f"{name}-torch") for name in (*lights, *papers)]
    parts += [Part(f"{name}-fp32") for name in (*lights, *papers)]
    parts.append(Part("product-fp32", 120))
    parts += [
        Part(f"{name}-{precision}")
        for name in (*lights, *papers)
        for precision in prepared.bundles[name].get("more_precisions", ())
    ]
    return parts


def spawn(command: list[str], limit_s: float) -> tuple[int, str]:
    """Run a command; kill it and what it started when its time is over."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_paths())},
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit_s)
            return process.returncode, _last_lines(said)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            said, _ = process.communicate()
            return -9, f"{_last_lines(said)}\nstopped after {limit_s:.0f} s"


def run(settings: Settings, spawn: Spawn = spawn, say: Callable[[str], None] = print) -> int:
    """Measure everything that there is time for; return the exit status.

    0: all parts were measured. 1: some failed or were left out. 3: there is no GPU or no TensorRT.

    Raises:
        PreparedError: if the prepared folder cannot be read.
    """
    prepared = read_prepared(settings.prepared)
    began = time.monotonic()
    content: dict[str, Any] = {
        "machine": describe_machine(),
        "bundles": dict(prepared.bundles),
        "minutes": settings.minutes,
        "parts": {},
        "left_out": {},
    }
    settings.out.mkdir(parents=True, exist_ok=True)
    parts_folder = settings.work / "parts"
    parts_folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write() -> None:
        content["seconds"] = round(time.monotonic() - began, 1)
        (settings.out / RESULTS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (settings.out / TABLE).write_text(gpu_table(content), encoding="utf-8")

    def measure(part: Part) -> Mapping[str, Any]:
        file = parts_folder / f"{part.name}.json"
        known = _read(file)
        if known.get("complete"):
            say(f"{part.name}: measured before")
            return known
        file.unlink(missing_ok=True)
        left = 60 * settings.minutes - (time.monotonic() - began)
        status, said = spawn(_command(settings, part, file), min(left, part.limit_s))
        found = dict(_read(file))
        if status != 0 or not found.get("complete"):
            found["ended"] = _ending(status, said)
        say(f"{part.name}: {_summary(found)}")
        return found

    machine = measure(Part("machine", 60))
    content["parts"]["machine"] = machine
    why = machine.get("failed") or machine.get("ended")
    if why:
        content["stopped"] = f"no TensorRT on a GPU here: {why}"
        write()
        say(content["stopped"])
        return NO_GPU
    write()
    for part in parts_of(prepared, settings.torch_python is not None):
        left = 60 * settings.minutes - (time.monotonic() - began)
        if left < LEAST_S and not _read(parts_folder / f"{part.name}.json").get("complete"):
            content["left_out"][part.name] = f"no time was left of {settings.minutes:g} minutes"
            say(f"{part.name}: {content['left_out'][part.name]}")
        else:
            content["parts"][part.name] = measure(part)
        write()
    write()
    failed = content["left_out"] or any(_failures(p) for p in content["parts"].values())
    return SOME_FAILED if failed else OK


def _command(settings: Settings, part: Part, file: Path) -> list[str]:
    name, _, kind = part.name.rpartition("-")
    if kind == "torch":
        assert settings.torch_python is not None
        return [
            *(settings.torch_python, "-m", TORCH_MODULE, f"--into={file}"),
            f"--bundle={settings.prepared / 'bundles' / name}",
            f"--recording={settings.prepared / 'recordings' / f'{name}.npz'}",
            f"--steps={settings.steps}",
        ]
    return [
        *(sys.executable, "-m", MODULE, str(settings.prepared), f"--part={part.name}"),
        *(f"--into={file}", f"--work={settings.work}", f"--steps={settings.steps}"),
        f"--copy-bytes={settings.copy_bytes}",
    ]


def measure_part(settings: Settings, part: str, into: Path) -> None:
    """Measure one part; ``into`` gets each section as soon as it is known, "complete" at the end."""
    content: dict[str, Any] = {}

    def done(section: str, figures: Mapping[str, Any]) -> None:
        content[section] = dict(figures)
        write_part(content, into)

    prepared = read_prepared(settings.prepared)
    try:
        if part == "machine":
            content.update(gpu_speed.describe_gpu())
        elif part == "copy":
            content.update(gpu_speed.measure_copy(settings.copy_bytes))
        elif part.startswith("product-"):
            precision = part.removeprefix("product-")
            file = settings.prepared / prepared.products[precision]
            content.update(gpu_speed.measure_product(file.read_bytes(), file.name, precision))
        else:
            _measure_bundle(settings, prepared, part, done)
    except Exception as error:  # a failure is this part's result
        content["failed"] = f"{type(error).__name__}: {error}"
    content["complete"] = True
    write_part(content, into)


def _measure_bundle(
    settings: Settings,
    prepared: Prepared,
    part: str,
    done: Callable[[str, Mapping[str, Any]], None],
) -> None:
    name, _, precision = part.rpartition("-")
    folder = settings.prepared
    bundle = load_bundle(folder / "bundles" / name)

    def walk(session: Any) -> Mapping[str, Any]:
        stored = load_walks(folder / "walks" / f"{name}.npz", prepared.clips)
        found = {}
        for clip_name, (reference, noise) in stored.items():
            clip = load_clip(folder / "clips" / f"{clip_name}.npz")
            boxes = follow(bundle, session, clip.frames, clip.first_box)
            found[clip_name] = {
                **compare_trajectories(reference, boxes),
                "noise": compare_trajectories(reference, noise),
            }
        return found

    # Whole clips say nothing about a network that was never trained: its answers are chaotic.
    trained = bool(prepared.bundles[name]["trained"])
    gpu_speed.measure_bundle(
        bundle,
        precision,
        load_steps(folder / "recordings" / f"{name}.npz"),
        steps=settings.steps,
        cache_dir=settings.work / "engines",
        work=prepared.bundles[name]["work"].get(precision, {}),
        walk=walk if trained else None,
        done=done,
    )


def write_part(content: Mapping[str, Any], file: Path) -> None:
    """Write a part's figures as a whole: its reader may come at any time."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _failures(part: Mapping[str, Any]) -> list[str]:
    """Return why a part, or sections of it, have no figures."""
    found = [str(part[key]) for key in ("failed", "ended") if key in part]
    sections = ((k, v) for k, v in part.items() if isinstance(v, Mapping))
    return found + [f"{name}: {v['failed']}" for name, v in sections if "failed" in v]


def _summary(part: Mapping[str, Any]) -> str:
    wrong = _failures(part)
    if wrong:
        return "failed: " + " | ".join(" ".join(text.split())[:300] for text in wrong)
    times = part.get("speed", part).get("gpu_ms")
    return f"{times['p50']:.3f} ms a step" if times else "measured"


def _ending(status: int, said: str) -> str:
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{how}: {said or 'it said nothing'}"


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_KEPT_LINES:])


def _paths() -> list[str]:
    """Return the import path for children, which must find this package."""
    root = str(Path(__file__).resolve().parents[2])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return list(dict.fromkeys((root, *filter(None, given))))


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("prepared", type=Path, help="what siam-tracker gpu-prepare made")
    parser.add_argument("--out", type=Path, default=Path("out/gpu/results"))
    parser.add_argument("--work", type=Path, default=Path("out/gpu/work"))
    parser.add_argument("--minutes", type=float, default=9.0, help="begin nothing after this time")
    parser.add_argument("--steps", type=int, default=300, help="steps that are timed")
    parser.add_argument("--copy-bytes", type=int, default=gpu_speed.COPY_BYTES)
    parser.add_argument("--torch-python", help="a Python with torch; without: torch is left out")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    settings = Settings(
        *(given.prepared, given.out, given.work, given.minutes, given.steps, given.copy_bytes),
        given.torch_python,
    )
    try:
        if given.part:
            measure_part(settings, given.part, given.into)
            return OK
        return run(settings)
    except (PreparedError, BackendError, OSError) as error:
        print(f"gpu_benchmark: {error}", file=sys.stderr)
        return WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
