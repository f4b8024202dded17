"""Which of a backbone's maps a tracker matches."""

from __future__ import annotations

from siam_tracker_ros.networks.config import ConfigError


def level_names(kind: str, levels: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``levels`` if there is one and every one is known.

    Raises:
        ConfigError: naming the level that is not known.
    """
    if not levels:
        raise ConfigError(f"backbone.levels: none of {', '.join(known)} is named")
    for name in levels:
        if name not in known:
            raise ConfigError(
                f"backbone.levels: backbone.kind {kind} has {', '.join(known)}, not {name!r}"
            )
    return levels
