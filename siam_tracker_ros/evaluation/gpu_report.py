"""A GPU run's figures as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    *("model", "precision", "step p50 ms", "p95 ms", "call p50 ms", "x published", "build s"),
    *("engines MB", "GPU MiB", "TFLOP/s", "% of product", "GB/s", "% of copy"),
    *("box px", "median IoU", "lost", "copies in/out", "torch eager / compiled ms"),
)


def gpu_table(content: Mapping[str, Any]) -> str:
    """Return the table for a run's JSON, with what was left out and what failed below it."""
    parts = content["parts"]
    machine = parts.get("machine", {})
    lines = []
    if "gpu" in machine:
        lines.append(
            f"{machine['gpu']} ({machine['multiprocessors']} multiprocessors, driver for CUDA "
            f"{machine['driver_cuda']}), TensorRT {machine['tensorrt']}"
        )
    if content.get("stopped"):
        lines.append(content["stopped"])
    copy = _get(parts, "copy", "bytes_per_s")
    for precision in ("fp16", "fp32"):
        reached = _get(parts, f"product-{precision}", "flop_per_s")
        if reached:
            lines.append(f"Matrix product {precision}: {reached / 1e12:.1f} TFLOP/s")
    if copy:
        lines.append(f"Copy within the GPU: {copy / 1e9:.0f} GB/s read and written")
    rows = []
    for name, entry in content["bundles"].items():
        for precision in ("fp16", "fp32", *entry.get("more_precisions", ())):
            part = parts.get(f"{name}-{precision}")
            if part is not None:
                torch = parts.get(f"{name}-torch", {})
                ceilings = (_get(parts, f"product-{precision}", "flop_per_s"), copy)
                rows.append(_row(name, precision, entry, part, torch, ceilings))
    if rows:
        lines += [
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"|{' --- |' * len(COLUMNS)}",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    wrong = []
    for name, part in parts.items():
        for key in ("failed", "ended"):
            if key in part:
                wrong.append(f"* {name}: {_one_line(part[key])}")
        for section, figures in part.items():
            if isinstance(figures, Mapping) and "failed" in figures:
                wrong.append(f"* {name}, {section}: {_one_line(figures['failed'])}")
    wrong += [f"* {name}: {why}" for name, why in content.get("left_out", {}).items()]
    if wrong:
        lines += ["", "Without figures:", *wrong]
    return "\n".join(lines) + "\n"


def _row(
    name: str,
    precision: str,
    entry: Mapping[str, Any],
    part: Mapping[str, Any],
    torch: Mapping[str, Any],
    ceilings: tuple[float | None, float | None],
) -> list[str]:
    p50 = _get(part, "speed", "gpu_ms", "p50")
    call = _get(part, "speed", "call_ms", "p50")
    published = entry.get("published_fps")
    flop, moved = (_get(part, "speed", f"{key}_per_s") for key in ("flop", "bytes"))
    engines = part.get("build", {}).get("engine_bytes", {})
    clips = [v for v in part.get("trajectories", {}).values() if isinstance(v, Mapping)]
    copies = part.get("copies", {}).get("bytes", {})
    timed = [_get(torch, kind, "gpu_ms", "p50") for kind in ("eager_fp32", "compiled_fp16")]
    return [
        name,
        precision,
        _number(p50, 3),
        _number(_get(part, "speed", "gpu_ms", "p95"), 3),
        _number(call, 3),
        _number(1e3 / call / published if call and published else None, 1),
        _number(_get(part, "build", "seconds"), 1),
        _number(sum(engines.values()) / 1e6 if engines else None, 1),
        _number(_get(part, "load", "gpu_memory_mib"), 0),
        _number(flop / 1e12 if flop else None, 2),
        _number(100 * flop / ceilings[0] if flop and ceilings[0] else None, 1),
        _number(moved / 1e9 if moved else None, 0),
        _number(100 * moved / ceilings[1] if moved and ceilings[1] else None, 1),
        _number(_get(part, "parity", "median_difference", "result.box"), 4),
        _number(min((c["median_iou"] for c in clips), default=None), 4),
        str(sum(c["lost"] for c in clips)) if clips else "-",
        f"{len(copies['host to gpu'])}/{len(copies['gpu to host'])}" if copies else "-",
        " / ".join(_number(value, 3) for value in timed),
    ]


def _get(content: Mapping[str, Any], *keys: str) -> Any:
    """Return a figure, or None where it is missing on the way."""
    found: Any = content
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:400]
