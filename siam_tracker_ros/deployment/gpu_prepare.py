"""Makes the folder that a GPU run needs (see ``evaluation.gpu_inputs``), on a machine without a GPU."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from siam_tracker_ros.bundle import Bundle, load_bundle
from siam_tracker_ros.deployment.precisions import add_precision
from siam_tracker_ros.evaluation.agreement import NOISE_SHIFT, follow, record, save_steps
from siam_tracker_ros.evaluation.gpu_inputs import LISTING, StoredClip, save_clip, save_walks
from siam_tracker_ros.evaluation.reference_session import ReferenceSession
from siam_tracker_ros.evaluation.sequences import Sequence as Clip

RECORDED_STEPS = 12
"""Steps of a recording: enough to tell a wrong engine, small enough to travel."""

PRODUCT_SIDE = 8192

PUBLISHED_FPS = {"siam_stm": 66.0, "im_siam": 52.0, "stm_track": 37.0, "spm_tracker": 120.0}
"""Frames a second that the papers give for their trackers, each on the GPU of its time."""


@dataclass(frozen=True)
class Subject:
    """A bundle to be measured: a light or a paper's configuration, trained or not."""

    bundle: Bundle
    light: bool
    trained: bool


def prepare(
    out: Path,
    subjects: Sequence[Subject],
    clips: Sequence[Clip],
    *,
    frames: int = 120,
    recorded: int = RECORDED_STEPS,
    product_side: int = PRODUCT_SIDE,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the prepared folder; return it.

    Args:
        out: where to; files that are there are replaced.
        subjects: what is to be measured.
        clips: what trained bundles follow; the first is also what the recordings are made of.
        frames: at most so many of each clip.
        recorded: steps of each recording.
        product_side: of the square matrices whose product is the GPU's ceiling.
        say: called with a line for each step.

    Raises:
        ExportError: if a graph has no FP16 twin.
        BundleError: if a bundle cannot be read or written.
    """
    stored = []
    for clip in clips:
        say(f"clip {clip.name}")
        stored.append(save_clip(clip, frames, out / "clips" / f"{clip.name}.npz"))
    listing: dict[str, Any] = {"bundles": {}, "clips": [clip.name for clip in clips]}
    for subject in subjects:
        name = subject.bundle.name
        say(f"{name}: the reference's answers")
        bundle = with_twins(subject.bundle, out / "bundles" / name)
        _reference(bundle, stored, subject.trained, recorded, out)
        listing["bundles"][name] = {
            "light": subject.light,
            "trained": subject.trained,
            "published_fps": PUBLISHED_FPS.get(bundle.tracker),
            "more_precisions": sorted(bundle.precisions.keys() - {"fp16"}),
            "work": {
                "fp32": graph_work(bundle.read(bundle.graphs["search"].file)),
                **{
                    precision: graph_work(bundle.read(files["search"]))
                    for precision, files in bundle.precisions.items()
                },
            },
        }
    products = {}
    for precision, kind in (("fp16", TensorProto.FLOAT16), ("fp32", TensorProto.FLOAT)):
        products[precision] = f"products/{precision}.onnx"
        (out / "products").mkdir(parents=True, exist_ok=True)
        (out / products[precision]).write_bytes(product_graph(product_side, kind))
    listing["products"] = products
    (out / LISTING).write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    return out


def with_twins(bundle: Bundle, folder: Path) -> Bundle:
    """Return a copy of a bundle in ``folder``; it has FP16 twins if the bundle has none.

    Raises:
        ExportError: if a graph has no FP16 twin.
    """
    shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    copy = load_bundle(folder)
    return copy if "fp16" in copy.precisions else add_precision(copy, "fp16")


def _reference(
    bundle: Bundle, clips: Sequence[StoredClip], trained: bool, recorded: int, out: Path
) -> None:
    """Store what the reference answers: the recording, and for a trained bundle whole walks."""
    reference = ReferenceSession(bundle)
    walks = {}
    for index, clip in enumerate(clips if trained else clips[:1]):
        frames = clip.frames if trained else clip.frames[:recorded]
        recording, boxes = record(bundle, reference, clip.name, frames, clip.first_box, recorded)
        if index == 0:
            save_steps(recording, out / "recordings" / f"{bundle.name}.npz")
        if trained:
            moved = follow(bundle, reference, frames, clip.first_box, shift=NOISE_SHIFT)
            walks[clip.name] = (boxes, moved)
    if trained:
        save_walks(walks, out / "walks" / f"{bundle.name}.npz")


def graph_work(data: bytes) -> dict[str, int]:
    """Return what one run of a graph must do at least.

    Returns:
        ``flop``: two for each multiply-add of convolutions and products. ``bytes``: weights, and
        inputs and outputs of those layers, each once: what moves where nothing stays in a cache.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    graph = model.graph
    sizes: dict[str, tuple[list[int], int]] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        item = helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        sizes[value.name] = ([side.dim_value for side in kind.shape.dim], item)
    for tensor in graph.initializer:
        item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        sizes[tensor.name] = (list(tensor.dims), item)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            sizes[node.output[0]] = (list(tensor.dims), item)
    flop = moved = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        shape = sizes[node.output[0]][0]
        inner = sizes[node.input[1]][0]
        if node.op_type == "Conv":
            depth = math.prod(inner[1:])
        elif node.op_type == "ConvTranspose":
            shape, depth = sizes[node.input[0]][0], math.prod(inner[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            depth = sizes[node.input[0]][0][-2 if transposed else -1]
        flop += 2 * math.prod(shape) * depth
        for value in (*node.input, *node.output):
            if value:
                moved += math.prod(sizes[value][0]) * sizes[value][1]
    return {"flop": flop, "bytes": moved}


def product_graph(side: int, kind: int) -> bytes:
    """Return a graph that multiplies two square matrices, ``a`` and ``b``."""
    shape = (side, side)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"], name="product")],
        "product",
        [helper.make_tensor_value_info(name, kind, shape) for name in ("a", "b")],
        [helper.make_tensor_value_info("c", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
