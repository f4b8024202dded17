"""The same step in PyTorch on the same GPU: eager in FP32, and compiled in FP16.

``python -m siam_tracker_ros.deployment.torch_speed --bundle FOLDER --recording FILE --into FILE``, in a Python of its
own: the figures go into a JSON file. The network is made from the bundle's provenance, with random weights: what a
step costs does not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siam_tracker_ros.bundle import Bundle, load_bundle
from siam_tracker_ros.evaluation.agreement import StepRecord, load_steps
from siam_tracker_ros.evaluation.gpu_benchmark import write_part
from siam_tracker_ros.evaluation.gpu_speed import millisecond_percentiles
from siam_tracker_ros.networks.build import make_network
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig
from siam_tracker_ros.networks.tracker_network import SearchGraph, TemplateGraph, TrackerNetwork

WARM_UP = 10

KINDS = ("eager_fp32", "compiled_fp16")


def network_of(bundle: Bundle) -> TrackerNetwork:
    """Return a network of the bundle's configuration, with random weights.

    Raises:
        ConfigError: if the provenance names no network.
    """
    config = bundle.provenance.get("config", {})
    if not config:
        raise ConfigError(f"{bundle.name}: bundle.yaml does not say which network it is")
    # A training configuration has the network's below "network".
    return make_network(NetworkConfig.from_dict(config.get("network", config))).eval()


def search_arguments(
    network: TrackerNetwork, bundle: Bundle, recording: StepRecord
) -> tuple[Tensor, ...]:
    """Return the search graph's inputs of a recording's last step, the state as it is at a start."""
    assert recording.template is not None
    size = torch.tensor(recording.sizes[0], dtype=torch.float32)
    template = TemplateGraph(network)
    given = (torch.from_numpy(recording.template.copy()), size)[: len(template.reads)]
    constant = template(*given)
    memory = recording.memories[-1]
    values: dict[str, Tensor] = {
        "search": torch.from_numpy(recording.searches[-1].copy()),
        "previous_size": torch.tensor(recording.sizes[-1], dtype=torch.float32),
        "first": torch.zeros(1),
        **{f"tuning.{k}": torch.tensor([float(bundle.tuning[k])]) for k in network.tuning},
        **{
            f"state.{k}": v
            for k, v in (
                *zip(network.constant_states, constant, strict=True),
                *network.carried_states().items(),
            )
        },
    }
    if memory is not None:
        values["memory"] = torch.from_numpy(memory.crop.copy())
        values["memory_size"] = torch.tensor(memory.size, dtype=torch.float32)
    return tuple(values[name] for name in SearchGraph(network).reads)


def measure(
    network: TrackerNetwork, given: tuple[Tensor, ...], kind: str, steps: int, device: str
) -> Mapping[str, Any]:
    """Return the times of a step: crop to the GPU, the graph, results back.

    Args:
        network: on the CPU or on the device.
        given: the search graph's inputs, on the CPU.
        kind: eager_fp32 or compiled_fp16.
        steps: how many are timed.
        device: cuda or cpu.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    graph: Callable[..., tuple[Tensor, ...]] = SearchGraph(network.to(device)).eval()
    half: Any = contextlib.nullcontext()
    began = time.monotonic()
    if kind == "compiled_fp16":
        graph = torch.compile(graph, mode="reduce-overhead")
        half = torch.autocast(device, dtype=torch.float16)
    crop, *rest = (value.to(device) for value in given)
    host = given[0].pin_memory() if device == "cuda" else given[0]

    def step() -> None:
        crop.copy_(host, non_blocking=True)
        for value in graph(crop, *rest)[:4]:
            value.cpu()

    times = []
    with torch.inference_mode(), half:
        for _ in range(WARM_UP):
            step()
        ready = time.monotonic() - began
        for _ in range(steps):
            times.append(_timed(step, device))
    return {"prepare_s": ready, "gpu_ms": millisecond_percentiles(times)}


def _timed(step: Callable[[], None], device: str) -> float:
    if device != "cuda":
        before = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - before)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    marks[0].record()
    step()
    marks[1].record()
    torch.cuda.synchronize()
    return float(marks[0].elapsed_time(marks[1]))


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, and return the exit status: always 0, failures are in the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args(arguments)
    content: dict[str, Any] = {"version": f"torch {torch.__version__}, NumPy {np.__version__}"}
    try:
        bundle = load_bundle(given.bundle)
        network = network_of(bundle)
        with torch.inference_mode():
            values = search_arguments(network, bundle, load_steps(given.recording))
        for kind in given.kinds.split(","):
            try:
                content[kind] = measure(network, values, kind, given.steps, given.device)
            except Exception as error:  # one kind's failure is a result, and the other still counts
                content[kind] = {"failed": f"{type(error).__name__}: {str(error)[:400]}"}
            write_part(content, given.into)
    except Exception as error:  # see above
        content["failed"] = f"{type(error).__name__}: {error}"
    content["complete"] = True
    write_part(content, given.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
