"""More precisions for a bundle that is there: FP16 and INT8 twins of its graphs. Needs no torch for FP16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from siam_tracker_ros.bundle import Bundle, write_bundle
from siam_tracker_ros.bundle.write import DOCUMENTS, Content
from siam_tracker_ros.deployment.calibration import CalibrationClip, record_feeds
from siam_tracker_ros.deployment.compile_check import check_folder, compile_errors
from siam_tracker_ros.deployment.contract import ExportError
from siam_tracker_ros.deployment.half import half_graph
from siam_tracker_ros.deployment.quantise import int8_graph

ADDABLE = ("fp16", "int8")


def add_precision(
    bundle: Bundle,
    precision: str,
    clips: Sequence[CalibrationClip] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Write a bundle again with its graphs in one precision more; those that were there are replaced.

    Args:
        bundle: as loaded; its folder must be writable. It stays as it was if anything fails.
        precision: one of :data:`ADDABLE`.
        clips: INT8: what ranges are measured on.
        say: called with a line for each step.

    Returns:
        The bundle as loaded again.

    Raises:
        ExportError: if a graph has no such twin, or TensorRT's compiler refuses it (asked where
            ``compile_check`` is set up).
        BundleError: if a file of the bundle changed since it was loaded.
        CalibrationError: INT8 without clips.
        ValueError: for another precision.
        OSError: if the folder cannot be written.
    """
    graphs = {key: bundle.read(graph.file) for key, graph in bundle.graphs.items()}
    if precision == "fp16":
        twins = {key: half_graph(key, data) for key, data in graphs.items()}
    elif precision == "int8":
        say("measuring the layers' ranges")
        feeds = record_feeds(bundle, clips)
        twins = {}
        for key, data in graphs.items():
            say(f"quantising {key} over {len(feeds[key])} crops")
            twins[key] = int8_graph(key, data, feeds[key])
    else:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(ADDABLE)}")
    files = {key: f"{key}.{precision}.onnx" for key in twins}
    if check_folder() is not None:
        say("compiling with TensorRT's parser")
        for key, error in compile_errors(twins).items():
            if error is not None:
                raise ExportError(f"{files[key]}: {error}")
    before = bundle.precisions.get(precision, {}).values()
    kept = [file for file in bundle.files if file not in before and file not in files.values()]
    contents: dict[str, Content] = {file: bundle.path / file for file in kept}
    contents.update({files[key]: data for key, data in twins.items()})
    for document in DOCUMENTS:
        path = bundle.path / document
        if path.is_file():
            contents[document] = Path(path)
    say("writing the bundle")
    return write_bundle(
        bundle.path,
        name=bundle.name,
        tracker=bundle.tracker,
        crop=bundle.crop,
        graphs=bundle.graphs,
        tuning=bundle.tuning,
        presence=bundle.presence,
        contents=contents,
        precisions={**bundle.precisions, precision: files},
        provenance=bundle.provenance,
    )
