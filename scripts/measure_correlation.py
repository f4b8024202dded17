#!/usr/bin/env python3
"""Measures forms of the depth-wise correlation as exported graphs: ONNX Runtime, one thread, CPU time, medians.

The forms take turns, so that a loaded machine slows all of them; see docs/quantisation.md.
"""

from __future__ import annotations

import io
import statistics
import time
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import onnxscript.optimizer
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siam_tracker_ros.networks.layers import depthwise_correlation_as_products

ROUNDS = 31
CASES = ((96, 9, 33), (256, 5, 29), (64, 3, 31))
"""Channels, side of the kernel, side of the search features."""


def windows(features: Tensor, k: int) -> list[Tensor]:
    height, width = (int(side) - k + 1 for side in features.shape[-2:])
    return [features[:, :, i : i + height, j : j + width] for i in range(k) for j in range(k)]


def products(kernel: Tensor, features: Tensor) -> Tensor:
    return depthwise_correlation_as_products(kernel, features)


def grouped_convolution(kernel: Tensor, features: Tensor) -> Tensor:
    return F.conv2d(features, kernel.transpose(0, 1), groups=int(kernel.shape[1]))


def shifted_sums(kernel: Tensor, features: Tensor) -> Tensor:
    k = int(kernel.shape[-1])
    terms = [
        window * kernel[:, :, n // k, n % k, None, None]
        for n, window in enumerate(windows(features, k))
    ]
    return sum(terms[1:], terms[0])


def unfold_einsum(kernel: Tensor, features: Tensor) -> Tensor:
    channels, k = int(kernel.shape[1]), int(kernel.shape[-1])
    side = int(features.shape[-1]) - k + 1
    columns = F.unfold(features, k).reshape(1, channels, k * k, side * side)
    out = torch.einsum("bckn,bck->bcn", columns, kernel.reshape(1, channels, k * k))
    return out.reshape(1, channels, side, side)


def slices_product(kernel: Tensor, features: Tensor) -> Tensor:
    channels, k = int(kernel.shape[1]), int(kernel.shape[-1])
    side = int(features.shape[-1]) - k + 1
    stacked = torch.stack(windows(features, k), 2).reshape(1, channels, k * k, side * side)
    out = torch.matmul(kernel.reshape(1, channels, 1, k * k), stacked)
    return out.reshape(1, channels, side, side)


FORMS = (products, grouped_convolution, shifted_sums, slices_product, unfold_einsum)


class Form(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, kernel: Tensor, features: Tensor) -> Tensor:
        return self.function(kernel, features)


def session(function, inputs: tuple[Tensor, Tensor]) -> ort.InferenceSession:
    file = io.BytesIO()
    names = ["kernel", "features"]
    torch.onnx.export(
        Form(function), inputs, file, input_names=names, opset_version=17, dynamo=False
    )
    model = onnxscript.optimizer.optimize(onnx.load_from_string(file.getvalue()))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print("| channels, kernel, search | form | CPU ms | against the first | largest error |")
    print("| --- | --- | --- | --- | --- |")
    for channels, k, side in CASES:
        inputs = torch.randn(1, channels, k, k), torch.randn(1, channels, side, side)
        exact = grouped_convolution(*(tensor.double() for tensor in inputs)).numpy()
        feed = dict(zip(("kernel", "features"), (t.numpy() for t in inputs), strict=True))
        sessions = {function.__name__: session(function, inputs) for function in FORMS}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, one in sessions.items():
                began = time.thread_time()
                one.run(None, feed)
                times[name].append(time.thread_time() - began)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, one in sessions.items():
            error = float(np.abs(one.run(None, feed)[0] - exact).max())
            print(
                f"| {channels}, {k}x{k}, {side}x{side} | {name} | {medians[name] * 1e3:.2f} | "
                f"{medians[name] / medians['products']:.2f} | {error:.1e} |"
            )


if __name__ == "__main__":
    main()
