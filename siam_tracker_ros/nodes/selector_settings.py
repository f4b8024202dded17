"""The parameters of ``target_selector_node``."""

from __future__ import annotations

from dataclasses import dataclass

from siam_tracker_ros.nodes.parameters import Change
from siam_tracker_ros.nodes.settings import Settings, setting


@dataclass(frozen=True)
class SelectorSettings(Settings):
    """The values of all parameters of ``target_selector_node``; the fields are the table."""

    image_transport: str = setting(
        "raw", "How the images come.", Change.CONFIGURE, choices=("raw", "compressed")
    )
    image_reliability: str = setting(
        "auto",
        "Of the subscription to them; auto is what the publisher offers.",
        Change.CONFIGURE,
        choices=("auto", "reliable", "best_effort"),
    )
    image_rectified: bool = setting(
        False, "The images are rectified: camera_info's P holds, not K and D.", Change.CONFIGURE
    )
    optical_frame: str = setting("", "Frame of `~/cloud`. Empty: the image's.")
    rate: float = setting(
        10.0,
        "Pictures on `~/cloud` and `~/picture`, at most.",
        low=0.1,
        high=10.0,
        unit="Hz",
    )
    point_size: float = setting(
        0.1,
        "From one point of `~/cloud` to the next: the size of RViz's squares.",
        Change.CONFIGURE,
        low=0.01,
        high=10.0,
        unit="m",
    )
    click_timeout: float = setting(
        20.0, "Then the first click is forgotten.", low=0.1, high=600.0, unit="s"
    )
    preview_seconds: float = setting(
        1.0, "How long the picture with the new box stands still.", low=0.0, high=60.0, unit="s"
    )
    transform_timeout: float = setting(
        0.5, "How long the transform of a click is waited for.", low=0.0, high=10.0, unit="s"
    )
    candidate_tolerance: float = setting(
        0.3,
        "How far the stamp of a detector's boxes may be from the shown image's.",
        low=0.0,
        high=10.0,
        unit="s",
    )
    several_clickers: bool = setting(
        False,
        "Take clicks although several tools publish them: whose corners belong together is then "
        "for the operators to see to.",
    )
    label: str = setting("target", "What the selection says the target is.")
