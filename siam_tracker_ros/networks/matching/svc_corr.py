"""Space-variant channel-guided correlation (SiamSTM, section 3.2, equations 2 to 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siam_tracker_ros.networks.config import ConfigError, SVCCorrConfig
from siam_tracker_ros.networks.layers import (
    center_crop,
    conv_bn_relu,
    depthwise_correlation,
    separable_conv,
    unit_length,
)


class SVCCorr(nn.Module):
    """Depth-wise correlation plus a learned channel term for every search window.

    ::

        T_ch(w) = FC(maxpool_k(phi1(w))) + FC(avgpool_k(phi1(w))),  w in {z, x}          (2)
        f_ca    = phi2( ReLU( T_ch(z) + T_ch(x) ) )                                        (3)
        svc     = f_ca + f_sa,   f_sa = z (*) x                                            (4)

    The ReLU in (3) is our reading: without it phi2 is linear in a sum, the template only adds a
    constant bias, and template and window never interact. phi1 is a valid convolution, so that the
    descriptor of a search window equal to the template equals the template's (with padding it would
    differ at the template's border).

    With ``pixel`` (ours, not the paper's) three more inputs join f_sa through one 1x1 convolution:
    the cosine of each search cell with each template cell, the search features themselves, and
    their product with the mean of the template's centre. Pretrained features already match well;
    little training data then has less to learn.

    Args:
        channels: channels C of template and search features.
        config: sizes and flags.
    """

    def __init__(self, channels: int, config: SVCCorrConfig) -> None:
        super().__init__()
        self.config = config
        k = self.kernel = config.kernel
        if k < 5 or k % 2 == 0:
            raise ConfigError(f"matching.kernel must be odd and at least 5, got {k}")
        padding = 1 if config.phi1_pad else 0
        self.pool = k if config.phi1_pad else k - 2
        if config.xcorr_pre_conv:
            self.pre_template = conv_bn_relu(channels, channels, 3, padding=0)
            self.pre_search = conv_bn_relu(channels, channels, 3, padding=0)
        if config.channel:
            if config.separable:
                self.phi1 = separable_conv(channels, channels, padding=padding)
            else:
                self.phi1 = conv_bn_relu(channels, channels, 3, padding=padding)
            self.fc = nn.Sequential(
                nn.Conv2d(channels, config.hidden, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(config.hidden, channels, 1),
            )
            self.phi2 = conv_bn_relu(channels, channels, 1, relu=False)
        if config.pixel:
            self.gain = nn.Parameter(torch.tensor(6.0))
            self.mix = conv_bn_relu(3 * channels + k * k, channels, 1, relu=False)

    def template(self, features: Tensor) -> dict[str, Tensor]:
        """Reduce template features ``[B,C,S,S]`` to what the search needs.

        Returns:
            ``kernel`` ``[B,C,k,k]`` (the template's centre) and, with the channel term,
            ``descriptor`` ``[B,C,1,1]``.
        """
        kernel = center_crop(features, self.kernel)
        state = {"kernel": kernel}
        if self.config.channel:
            state["descriptor"] = self.channel_transform(kernel)
        return state

    def channel_transform(self, features: Tensor) -> Tensor:
        """T_ch of equation (2): ``[B,C,S,S]`` -> ``[B,C,S-k+1,S-k+1]`` descriptors of all k x k windows."""
        phi = self.phi1(features)
        largest = F.max_pool2d(phi, self.pool, stride=1)
        mean = F.avg_pool2d(phi, self.pool, stride=1)
        return self.fc(largest) + self.fc(mean)

    def forward(self, state: dict[str, Tensor], features: Tensor) -> Tensor:
        """Match search features ``[B,C,S,S]``; returns ``[B,C,R,R]`` with R = S - k + 1."""
        matched = self.spatial(state["kernel"], features)
        if self.config.channel:
            matched = matched + self.channel(state["descriptor"], self.channel_transform(features))
        return matched

    def channel(self, template: Tensor, windows: Tensor) -> Tensor:
        """f_ca of equation (3) from descriptors ``[B,C,1,1]`` and ``[B,C,R,R]``."""
        return self.phi2(F.relu(template + windows))

    def spatial(self, kernel: Tensor, features: Tensor) -> Tensor:
        """f_sa (and, with ``pixel``, what joins it): ``[B,C,R,R]``."""
        if self.config.xcorr_pre_conv:
            spatial = depthwise_correlation(self.pre_template(kernel), self.pre_search(features))
        elif self.config.pixel:
            # The mean instead of the sum, of unit vectors: the same scale as the other inputs of
            # the mix.
            spatial = depthwise_correlation(unit_length(kernel), unit_length(features)) * (
                kernel.shape[1] / self.kernel**2
            )
        else:
            return depthwise_correlation(kernel, features)
        if not self.config.pixel:
            return spatial
        size = spatial.shape[-1]
        here = center_crop(features, size)
        cells = unit_length(kernel).flatten(2).transpose(1, 2)  # [B,k*k,C]
        cosine = torch.matmul(cells, unit_length(here).flatten(2)) * self.gain
        cosine = cosine.view(here.shape[0], self.kernel**2, size, size)
        centre = center_crop(kernel, 3).mean((2, 3), keepdim=True)
        joined = torch.cat(
            [spatial.to(here.dtype), cosine.to(here.dtype), here, here * centre], dim=1
        )
        return self.mix(joined)
