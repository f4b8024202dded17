"""When a template takes in how the target looks now (``tuning: template_share`` of a bundle)."""

from __future__ import annotations

EVERY = 5
"""Frames from one renewal to the next, counted while TRACKING: each costs a run of the template graph."""

SURE = 0.8
"""Presence that a frame must reach to be taken in."""

RATE = 0.3
"""Of the running mean of what was taken in."""


def is_due(seen: int, score: float, share: float) -> bool:
    """Tell whether a frame's crop is to be taken in.

    Args:
        seen: frames TRACKING in a row, this one included.
        score: its presence.
        share: what the template may take in; 0 for nothing.
    """
    return share > 0.0 and seen % EVERY == 0 and score >= SURE
