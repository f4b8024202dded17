"""Why images do not arrive, or not all of them, and what helps: for people."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from siam_tracker_ros.nodes.statistics import Figures

SILENCE = 3.0
"""Seconds without an image after which it is said."""

LOST_SHARE = 0.1
"""Share of the images of the last seconds that may be lost on the way without a word."""

OVERWRITTEN_SHARE = 0.3
"""Share that may be overwritten in the queues of publisher and node: a busy machine does that."""

LEAST_LOST = 5
"""Fewer lost images than these say nothing."""

SMALL_MEMORY = 128 << 20
"""Shared memory of the machine below which large images have no room, bytes."""

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@dataclass(frozen=True)
class Offer:
    """A publisher on the topic of the images: its node, message type and reliability."""

    node: str
    type: str
    reliable: bool


@dataclass(frozen=True)
class Reading:
    """How images are subscribed to.

    Attributes:
        topic: resolved.
        type: of the messages: sensor_msgs/msg/Image.
        reliability: the parameter: auto, reliable or best_effort.
        offers: who publishes on that topic.
        compressed_offered: whether somebody publishes on the topic with /compressed behind it.
        for_seconds: since when.
    """

    topic: str
    type: str
    reliability: str
    offers: Sequence[Offer]
    compressed_offered: bool
    for_seconds: float


def transport_problem(reading: Reading, figures: Figures, remedy: str) -> str:
    """Return what is wrong with the images' way to the node; empty if nothing is."""
    silent = figures.silent_for
    silent = reading.for_seconds if silent is None else min(silent, reading.for_seconds)
    if silent >= SILENCE:
        return _silence(reading, figures, remedy)
    lost, overwritten = figures.recently_lost, figures.recently_overwritten
    total = figures.recently_received + lost + overwritten
    each = f"each {figures.image_bytes / 1e6:.2g} MB"
    if lost >= LEAST_LOST and lost >= LOST_SHARE * total:
        return f"{lost / total:.0%} of the images are lost on the way, {each}: {remedy}"
    if overwritten >= LEAST_LOST and overwritten >= OVERWRITTEN_SHARE * total:
        return (
            f"{overwritten / total:.0%} of the images, {each}, are overwritten in a queue before "
            f"this node takes them: the machine is too busy, or {remedy}"
        )
    return ""


def _silence(reading: Reading, figures: Figures, remedy: str) -> str:
    fitting = [offer for offer in reading.offers if offer.type == reading.type]
    more = " any more" if figures.received else ""
    if not reading.offers:
        text = f"no images: nobody publishes {reading.topic}{more}"
        if reading.compressed_offered:
            text += f", but somebody {reading.topic}/compressed: set image_transport to compressed"
        return text
    if not fitting:
        other = reading.offers[0]
        text = (
            f"no images: {other.node} publishes {other.type} on {reading.topic}, and {reading.type} "
            "is wanted"
        )
        if other.type.endswith("CompressedImage"):
            text += ": set image_transport to compressed"
        return text
    if reading.reliability == "reliable" and not any(offer.reliable for offer in fitting):
        return (
            f"no images: image_reliability is reliable, but {fitting[0].node} offers "
            f"{reading.topic} best effort: set image_reliability to auto"
        )
    text = f"no images{more}, though {fitting[0].node} has a publisher on {reading.topic}"
    return f"{text}; if it sends any, {remedy}"


def transport_remedy(
    middleware: str,
    profile: str,
    environment: Mapping[str, str] = os.environ,
    shared_memory: int | None = None,
) -> str:
    """Return what helps against lost images.

    Args:
        middleware: its identifier: rmw_fastrtps_cpp.
        profile: the path of the Fast DDS profile that ships with this package.
        environment: of this process.
        shared_memory: bytes that this machine's shared memory can hold; None = not known.
    """
    if "fastrtps" not in middleware:
        return (
            f"with {middleware}, raise its buffers for large messages (net.core.rmem_max), or use "
            "image_transport compressed"
        )
    here = "" if any(environment.get(name) for name in PROFILE_VARIABLES) else "this node and "
    text = (
        "they may be too large for Fast DDS's defaults: start "
        f"{here}the camera's driver with {PROFILE_VARIABLES[0]}={profile}, or use image_transport "
        "compressed"
    )
    if shared_memory is not None and shared_memory < SMALL_MEMORY:
        text += (
            f"; /dev/shm has only {shared_memory / 1e6:.0f} MB: a container needs "
            "--shm-size 512m or more"
        )
    return text


def shared_memory_bytes(path: str = "/dev/shm") -> int | None:
    """Return how much the machine's shared memory can hold; None where it does not tell."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_frsize * found.f_blocks
