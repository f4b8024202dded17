"""Pretrained weights into a backbone: all of them fit, or a short message says which do not."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

_SHOWN = 3


def load_pretrained(
    module: nn.Module, weights: Mapping[str, Tensor], label: str, unused: tuple[str, ...]
) -> None:
    """Fill ``module`` with ``weights``.

    Args:
        module: the backbone.
        weights: a state dict of any floating-point type.
        label: what the message calls the backbone.
        unused: beginnings of names of which neither side needs the other's (classifiers, cut stages).

    Raises:
        ValueError: naming some of the weights that are missing, unknown or of another shape.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not k.startswith(unused)}
    given = {k: v for k, v in weights.items() if not k.startswith(unused)}
    wrong = {
        "missing": [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")],
        "unknown": [k for k in given if k not in wanted],
        "of another shape": [k for k in given if k in wanted and given[k].shape != wanted[k].shape],
    }
    if any(wrong.values()):
        details = "; ".join(
            f"{len(names)} {what}, such as {', '.join(names[:_SHOWN])}"
            for what, names in wrong.items()
            if names
        )
        raise ValueError(f"weights do not fit {label}: {details}")
    module.load_state_dict({k: v.to(wanted[k].dtype) for k, v in given.items()}, strict=False)
