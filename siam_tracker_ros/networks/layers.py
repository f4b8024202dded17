"""Small building blocks that several parts share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int = 1, *, padding: int | None = None, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, BatchNorm and (optionally) ReLU; ``padding`` None keeps the size."""
    pad = kernel // 2 if padding is None else padding
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, padding=pad, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def separable_conv(inputs: int, outputs: int, *, padding: int = 1) -> nn.Sequential:
    """Depth-wise 3x3 then 1x1, each with BatchNorm, ReLU at the end of both."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=padding, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        *conv_bn_relu(inputs, outputs, 1),
    )


class GroupNorm(nn.GroupNorm):
    """PyTorch's; in an exported graph its statistics are plain means, FP32.

    The exporter would write InstanceNormalization, which TensorRT 8 runs as a plugin that needs
    cuDNN.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[B,C,H,W]`` -> the same shape."""
        if not torch.onnx.is_in_onnx_export():
            return super().forward(input)
        batch, channels, height, width = (int(side) for side in input.shape)
        groups = input.float().reshape(batch, self.num_groups, -1)
        centred = groups - groups.mean(dim=2, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(dim=2, keepdim=True) + self.eps)
        plain = (centred * scale).reshape(batch, channels, height, width)
        return plain * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def depthwise_correlation(kernel: Tensor, features: Tensor) -> Tensor:
    """Valid cross-correlation channel by channel: ``f_sa = z (*) x``.

    A grouped convolution in torch (the fastest there, forward and backward). In an exported graph
    it is a matrix product instead: no convolution whose kernel is known only at run time, which
    TensorRT tunes badly. (ONNX Runtime would run that a little faster: docs/quantisation.md.)

    Args:
        kernel: ``[B,C,k,k]``.
        features: ``[B,C,H,W]``.

    Returns:
        ``[B,C,H-k+1,W-k+1]``; out[c,i,j] = sum(kernel[c] * features[c, i:i+k, j:j+k]).
    """
    if torch.onnx.is_in_onnx_export():
        return depthwise_correlation_as_products(kernel, features)
    batch, channels, height, width = features.shape
    out = F.conv2d(
        features.reshape(1, batch * channels, height, width),
        kernel.reshape(batch * channels, 1, *kernel.shape[-2:]),
        groups=batch * channels,
    )
    return out.reshape(batch, channels, *out.shape[-2:])


def depthwise_correlation_as_products(kernel: Tensor, features: Tensor) -> Tensor:
    """:func:`depthwise_correlation` as one batched matrix product and k additions of shifted maps.

    Y[c,v] = sum_u kernel[c,u,v] * features[c, u:u+R] for each kernel column v (the product), then
    out[c,:,j] = sum_v Y[c,v,:,j+v].
    """
    batch, channels, height, width = (int(side) for side in features.shape)
    k = int(kernel.shape[-1])
    rows, columns = height - k + 1, width - k + 1
    bands = torch.stack([features[:, :, u : u + rows] for u in range(k)], dim=2)
    products = torch.matmul(
        kernel.transpose(-1, -2), bands.reshape(batch, channels, k, rows * width)
    )
    products = products.reshape(batch, channels, k, rows, width)
    out = products[:, :, 0, :, :columns]
    for v in range(1, k):
        out = out + products[:, :, v, :, v : v + columns]
    return out


def center_crop(features: Tensor, size: int) -> Tensor:
    """Return the central ``size`` x ``size`` cells of ``[B,C,S,S]`` (S and size of the same parity)."""
    start = (features.shape[-1] - size) // 2
    return features[:, :, start : start + size, start : start + size]


def unit_length(features: Tensor) -> Tensor:
    """Scale every cell's channel vector to length one (FP32: the sum of squares does not fit FP16)."""
    features = features.float()
    return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + 1e-6)
