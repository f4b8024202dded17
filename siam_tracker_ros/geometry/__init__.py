"""Boxes and crops: the one geometry that training, robot and evaluation share."""

from siam_tracker_ros.geometry.boxes import MIN_SIDE, Box, iou_xywh
from siam_tracker_ros.geometry.crops import (
    Crop,
    CropSpec,
    box_side,
    context_side,
    extract_crop,
    search_crop,
    template_crop,
)
from siam_tracker_ros.geometry.pictures import ArrayPicture, Picture, Rgb, mean_colour

__all__ = [
    "MIN_SIDE",
    "ArrayPicture",
    "Box",
    "Crop",
    "CropSpec",
    "Picture",
    "Rgb",
    "box_side",
    "context_side",
    "extract_crop",
    "iou_xywh",
    "mean_colour",
    "search_crop",
    "template_crop",
]
