"""Evaluation: annotated clips, figures, one-pass evaluation, peers, speed, plots.

Only names that cost NumPy and OpenCV are exported here; peers, speed, plots and videos are imported
from their own modules.
"""

from siam_tracker_ros.evaluation.data_root import data_root, require_data
from siam_tracker_ros.evaluation.frames import ClipError, open_frames
from siam_tracker_ros.evaluation.metrics import Scores, mean_scores, overlaps, score, success_curve
from siam_tracker_ros.evaluation.protocol import (
    Answer,
    EvaluationError,
    FrameTracker,
    SequenceResult,
    Summary,
    evaluate_tracker,
    run_sequence,
)
from siam_tracker_ros.evaluation.sequences import (
    Sequence,
    SequenceError,
    read_boxes,
    read_sequence,
    read_sequences,
)
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence

__all__ = [
    "Answer",
    "ClipError",
    "EvaluationError",
    "FrameTracker",
    "Scores",
    "Sequence",
    "SequenceError",
    "SequenceResult",
    "Summary",
    "data_root",
    "evaluate_tracker",
    "mean_scores",
    "open_frames",
    "overlaps",
    "read_boxes",
    "read_sequence",
    "read_sequences",
    "require_data",
    "run_sequence",
    "score",
    "success_curve",
    "synthetic_sequence",
]
