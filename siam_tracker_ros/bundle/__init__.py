"""Model bundles: a folder with everything a robot needs to run one trained tracker."""

from __future__ import annotations

from siam_tracker_ros.bundle.find import default_search_path, find_bundle
from siam_tracker_ros.bundle.load import load_bundle
from siam_tracker_ros.bundle.types import (
    BUNDLE_FILE,
    NEXT,
    PRESENCE_FEATURES,
    SCHEMA,
    Bundle,
    BundleError,
    FileEntry,
    GraphSpec,
    Memory,
    PresenceSpec,
    StepResult,
    TensorSpec,
)
from siam_tracker_ros.bundle.write import write_bundle

__all__ = [
    "BUNDLE_FILE",
    "NEXT",
    "PRESENCE_FEATURES",
    "SCHEMA",
    "Bundle",
    "BundleError",
    "FileEntry",
    "GraphSpec",
    "Memory",
    "PresenceSpec",
    "StepResult",
    "TensorSpec",
    "default_search_path",
    "find_bundle",
    "load_bundle",
    "write_bundle",
]
