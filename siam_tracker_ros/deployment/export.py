"""A network becomes a model bundle: graphs, parity, model card and licence, checked and written as a whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from siam_tracker_ros.bundle import Bundle, PresenceSpec, write_bundle
from siam_tracker_ros.deployment.graphs import export_graphs
from siam_tracker_ros.deployment.half import half_graph
from siam_tracker_ros.deployment.model_card import ModelCard, licence_text, model_card
from siam_tracker_ros.deployment.parity import Clip, measure_parity
from siam_tracker_ros.networks.config import ConfigError
from siam_tracker_ros.networks.tracker_network import TrackerNetwork


def export_bundle(
    network: TrackerNetwork,
    folder: str | os.PathLike[str],
    *,
    name: str,
    provenance: Mapping[str, Any] | None = None,
    card: ModelCard | None = None,
    tuning: Mapping[str, float] | None = None,
    presence: PresenceSpec | None = None,
    clips: Sequence[Clip] = (),
    half: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, dict[str, Any]]:
    """Export ``network`` and write its bundle; a bundle that was in ``folder`` stays if anything fails.

    Args:
        network: in FP32 on the CPU.
        folder: where the bundle goes.
        name: the bundle's name.
        provenance: for bundle.yaml: config, data_manifest, revision, command, metrics, teachers.
        card: what the model card tells; without it the card says that nothing is known.
        tuning: changes to the network's ``default_tuning``.
        presence: the presence model; the bare score without.
        clips: what parity is measured on; a rendered clip without.
        half: also write the graphs' FP16 twins.
        say: called with a line for each step.

    Returns:
        The bundle as loaded from ``folder``, and what parity.json holds; see ``parity.failures``.

    Raises:
        ExportError: if a graph does not keep the contract.
        ConfigError: naming a tuning value that the network does not have.
        BundleError: if the parts do not make a valid bundle.
    """
    values = network.default_tuning
    for key, value in (tuning or {}).items():
        if key not in values:
            raise ConfigError(f"tuning.{key}: unknown; there are {', '.join(values)}")
        values[key] = float(value)
    say("exporting the graphs")
    graphs = export_graphs(network)
    twins = graphs if half else {}
    halves = {key: half_graph(key, graph.data) for key, graph in twins.items()}
    half_files = {key: f"{key}.fp16.onnx" for key in twins}
    card = card or ModelCard()
    facts = dict(provenance or {})
    facts.setdefault("config", network.config.to_dict())
    facts["config"] = _plain(facts["config"])

    def write(target: Path, documents: Mapping[str, str]) -> Bundle:
        return write_bundle(
            target,
            name=name,
            tracker=network.config.tracker,
            crop=network.config.crop,
            graphs={key: graph.spec for key, graph in graphs.items()},
            tuning=values,
            presence=presence or PresenceSpec(),
            contents={
                **{graph.spec.file: graph.data for graph in graphs.values()},
                **{half_files[key]: data for key, data in halves.items()},
                **documents,
            },
            precisions={"fp16": half_files} if half else {},
            provenance=facts,
        )

    # Parity is measured on a bundle as a robot would load it, so there are two: one to measure, one to keep.
    with tempfile.TemporaryDirectory() as scratch:
        say("measuring torch against ONNX Runtime")
        parity = measure_parity(network, write(Path(scratch) / name, {}), clips)
    say("writing the bundle")
    bundle = write(
        Path(folder),
        {
            "parity.json": json.dumps(parity, indent=1) + "\n",
            "README.md": model_card(name, network, values, card, parity),
            "LICENSE": licence_text(name, card),
        },
    )
    return bundle, parity


def _plain(value: Any) -> Any:
    """Return ``value`` with tuples as lists: YAML's safe subset has no tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
