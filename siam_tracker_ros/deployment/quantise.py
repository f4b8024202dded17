"""A graph's INT8 twin: Q and DQ nodes say which layers a back end may compute in INT8, and in which range.

Explicit quantisation is the one form that TensorRT 8.6 to 11 and ONNX Runtime all read: no calibration at the
engine's build, no tables beside the graph. Symmetric, weights per channel, biases and sums not quantised.

INT8 are the convolutions and products with weights of backbone, neck and heads, and the shortcuts of the backbone's
blocks. What compares the template with the search region, statistics, exponentials, decoding, box arithmetic and the
temporal modules stay FP32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from siam_tracker_ros.deployment.contract import IR_VERSION, ExportError, check_graph
from siam_tracker_ros.evaluation.reference_session import Arrays

LAYERS = ("Conv", "Gemm", "MatMul")
"""What INT8 is for."""

PARTS = frozenset(
    ("backbone", "memory_backbone", "stem", "early", "late", "neck", "memory_neck", "head")
)
"""Modules whose layers become INT8. (The exporter names a node's values by the modules that it is in.)"""


def int8_graph(name: str, data: bytes, feeds: Sequence[Arrays]) -> bytes:
    """Return the INT8 twin of an exported graph.

    Args:
        name: of the graph, for messages.
        data: the FP32 graph.
        feeds: inputs to measure the layers' ranges on, each with every input of the graph.

    Raises:
        ExportError: if nothing would be INT8, or what comes out does not keep the bundle's contract or does not run.
        ValueError: without feeds.
    """
    if not feeds:
        raise ValueError(f"{name}: nothing to calibrate on")
    model = onnx.load_from_string(data)
    layers = int8_layers(model)
    if not layers:
        raise ExportError(f"{name}: it has no layer that could be INT8")
    twin = _quantised(model, layers, feeds)
    twin.ir_version = IR_VERSION
    used = {node.domain for node in twin.graph.node}
    opsets = [entry for entry in twin.opset_import if entry.domain in ("", *used)]
    del twin.opset_import[:]
    twin.opset_import.extend(opsets)
    twin.producer_name, twin.producer_version = model.producer_name, model.producer_version
    del twin.metadata_props[:]
    reads, writes = ([t.name for t in side] for side in (model.graph.input, model.graph.output))
    check_graph(name, twin, reads, writes)
    result: bytes = twin.SerializeToString(deterministic=True)
    _run(name, result, feeds[0])
    return result


def int8_layers(model: Any) -> list[str]:
    """Return the names of the nodes of an FP32 ``onnx.ModelProto`` that become INT8."""
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in LAYERS
        and node.input[1] in weights
        and node.output[0].strip("/").split("/")[0].split(".")[0] in PARTS
    ]


def _quantised(model: Any, layers: list[str], feeds: Sequence[Arrays]) -> Any:
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    heard = logging.getLogger().level
    logging.getLogger().setLevel(
        logging.ERROR
    )  # it asks for a preparation that our export has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "int8.onnx"
            quantize_static(
                model,
                str(file),
                _Reader(feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                nodes_to_quantize=layers,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    # Q and DQ before a layer alone: TensorRT joins a layer, its activation and the next layer's Q.
                    "OpTypesToExcludeOutputQuantization": list(LAYERS),
                },
            )
            return onnx.load(file)
    finally:
        logging.getLogger().setLevel(heard)


class _Reader:
    """Feeds, one after the other, as ONNX Runtime's calibration wants them (its base class is an interface alone)."""

    def __init__(self, feeds: Sequence[Arrays]) -> None:
        self._feeds: Iterator[Arrays] = iter(feeds)
        self._count = len(feeds)

    def __len__(self) -> int:
        return self._count

    def get_next(self) -> Arrays | None:
        """Return the next feed; None after the last."""
        return next(self._feeds, None)


def _run(name: str, data: bytes, feed: Arrays) -> None:
    """Run a graph once and refuse it if it does not, or gives what is no number."""
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        outputs = session.run(None, feed)
    except Exception as error:  # ONNX Runtime's own errors have no common class
        raise ExportError(f"{name}: its INT8 twin does not run on ONNX Runtime: {error}") from error
    for tensor, value in zip(session.get_outputs(), outputs, strict=True):
        if not np.isfinite(value).all():
            raise ExportError(f"{name}: its INT8 twin's {tensor.name} is not finite")
