"""A bundle's README.md (model card) and LICENSE (terms of its weights), made from plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from siam_tracker_ros.deployment.costs import measure_costs
from siam_tracker_ros.deployment.data_terms import terms_of
from siam_tracker_ros.networks.tracker_network import TrackerNetwork

Row = Mapping[str, Any]

PRESENCE_HEADING = "## Presence"

_PAPERS = {
    "siam_stm": "SiamSTM (Spatio-Temporal Matching for Siamese Visual Tracking): depth-wise correlation with a "
    "space-variant channel term (SVC-Corr), a centre head, and the aberrance repressed module (ARM) in the graph",
    "im_siam": "IMSiam (IoU-aware Matching-adaptive Siamese network): L1 difference, identity and padded depth-wise "
    "correlation on several stages, one head with centre-ness and IoU for all of them",
    "stm_track": "STMTrack (Template-free Visual Tracking with Space-time Memory Networks): a memory of past frames "
    "with their foreground, read by pixel-wise attention; the memory is in the graph and of constant size",
    "spm_tracker": "SPM-Tracker (Series-Parallel Matching): a coarse stage of anchors and up-channel correlation, "
    "a fine stage that compares a few proposals with the template, and their fusion",
}


class CardError(ValueError):
    """Plain data that is no model card; the message names the key."""


@dataclass(frozen=True)
class DataUse:
    """A set that the weights were trained on; what is not given is filled in for sets the project knows."""

    name: str
    amount: str = ""
    what: str = ""
    licence: str = ""
    commercial: bool | None = None

    def filled(self) -> DataUse:
        """Return the entry with the project's own knowledge where it says nothing."""
        terms = terms_of(self.name)
        commercial = terms.commercial if self.commercial is None else self.commercial
        return DataUse(
            self.name,
            self.amount,
            self.what or terms.what,
            self.licence or terms.licence,
            commercial,
        )


@dataclass(frozen=True)
class Figures:
    """Measured numbers: how they were measured, and rows of named values (a table's columns are their keys)."""

    protocol: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ModelCard:
    """What a card tells beyond what the network itself says. Empty = not known, and the card says so.

    Attributes:
        summary: a sentence or two.
        data: every set that the weights have seen, ImageNet weights of a backbone too.
        teachers: rows with ``name``, ``use`` and ``licence``.
        training: facts of the run by name (steps, samples, minutes, device).
        metrics: accuracy, with its protocol.
        ablation: the same model without its parts.
        presence: what its calibrated score and the states are worth; without, it is not calibrated.
        speed: with the device in the protocol or the rows.
        limits: what it is bad at.
    """

    summary: str = ""
    data: tuple[DataUse, ...] = ()
    teachers: tuple[Row, ...] = ()
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Figures | None = None
    ablation: Figures | None = None
    presence: Figures | None = None
    speed: Figures | None = None
    limits: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Any) -> ModelCard:
        """Read a plain mapping (YAML, JSON).

        Raises:
            CardError: naming the key that is unknown or has a wrong value.
        """
        values = _mapping(values, "card")
        _known(values, [f.name for f in dataclasses.fields(cls)], "card")
        made: dict[str, Any] = {}
        for key, value in values.items():
            where = f"card.{key}"
            if key == "summary":
                made[key] = _text(value, where)
            elif key == "data":
                made[key] = tuple(_data_use(v, f"{where}[{i}]") for i, v in _items(value, where))
            elif key == "teachers":
                made[key] = tuple(_mapping(v, f"{where}[{i}]") for i, v in _items(value, where))
            elif key == "training":
                made[key] = _mapping(value, where)
            elif key == "limits":
                made[key] = tuple(_text(v, f"{where}[{i}]") for i, v in _items(value, where))
            else:
                made[key] = None if value is None else _figures(value, where)
        return cls(**made)

    def with_changes(self, values: Any) -> ModelCard:
        """Return this card with the keys that a plain mapping names replaced.

        Raises:
            CardError: as :meth:`from_dict`.
        """
        other = ModelCard.from_dict(values)
        return dataclasses.replace(self, **{key: getattr(other, key) for key in values})


def model_card(
    name: str,
    network: TrackerNetwork,
    tuning: Mapping[str, float],
    card: ModelCard,
    parity: Mapping[str, Any] | None,
) -> str:
    """Return the text of a bundle's README.md.

    Args:
        name: of the bundle.
        network: gives the architecture and its costs.
        tuning: the bundle's defaults.
        card: all else.
        parity: of parity.json, or None where it was not measured.
    """
    config = network.config
    costs = measure_costs(network)
    parts = [
        f"# {name}",
        card.summary or "No description was given.",
        "## Model",
        _PAPERS[config.tracker] + ".",
        _table(
            [
                {"part": "backbone", "value": config.backbone.kind},
                {"part": "neck", "value": f"{config.neck.kind}, {config.neck.channels} channels"},
                *(
                    {"part": name, "value": _part(getattr(config, name))}
                    for name in ("matching", "head", "temporal", "decoder")
                ),
                {"part": "crops", "value": f"{config.crop.template} and {config.crop.search} px"},
                {
                    "part": "response",
                    "value": f"{network.grid.cells} x {network.grid.cells}, stride 8",
                },
                {"part": "parameters", "value": f"{costs.parameters / 1e6:.2f} M"},
                {"part": "multiply-adds a frame", "value": f"{costs.macs / 1e9:.3f} G"},
                {"part": "tuning", "value": ", ".join(f"{k} {v:g}" for k, v in tuning.items())},
            ]
        ),
        "## Training data",
        _data(card),
        "## Teachers",
        _table(card.teachers) if card.teachers else "None: no other tracker's output was used.",
        "## Training",
        _table([{"fact": k, "value": v} for k, v in card.training.items()])
        if card.training
        else "Not recorded.",
        "## Accuracy",
        _measured(card.metrics),
        "## Without its parts",
        _measured(card.ablation),
        PRESENCE_HEADING,
        presence_text(card.presence),
        "## Speed",
        _measured(card.speed),
        "## Torch against the exported graphs",
        _parity(parity),
        "## Limits",
        "\n".join(f"- {line}" for line in card.limits) if card.limits else "Not described.",
        "## Licence of the weights",
        f"{_licence_name(card)}. See LICENSE.",
    ]
    return "\n\n".join(parts) + "\n"


def presence_text(figures: Figures | None) -> str:
    """Return the section that says whether the score is a probability."""
    if figures is None:
        return "Uncalibrated: the score is the network's own, not a probability."
    return _measured(figures)


def with_presence(text: str, figures: Figures | None) -> str:
    """Return a model card's text with its section on presence replaced, or put before that on speed.

    A text without both sections gets it at its end.
    """
    section = f"{PRESENCE_HEADING}\n\n{presence_text(figures)}\n\n"
    begin = text.find(f"{PRESENCE_HEADING}\n")
    if begin < 0:
        begin = end = text.find("## Speed\n")
        if begin < 0:
            return f"{text.rstrip()}\n\n{section.rstrip()}\n"
    else:
        end = text.find("\n## ", begin + 1) + 1 or len(text)
    return f"{(text[:begin] + section + text[end:]).rstrip()}\n"


def licence_text(name: str, card: ModelCard) -> str:
    """Return the text of a bundle's LICENSE: the terms that its training data allow.

    Weights made only from data that may be used commercially are Apache-2.0 like the code; all others, and those of
    unknown data, are for non-commercial research.
    """
    uses = [use.filled() for use in card.data]
    lines = [f"Licence of the weights of {name}", ""]
    if _commercial(card):
        lines += [
            "The weights in this folder are licensed under the Apache License, Version 2.0:",
            "https://www.apache.org/licenses/LICENSE-2.0",
        ]
    else:
        lines += [
            "The weights in this folder may be used, copied, changed and passed on, with this file, for",
            "non-commercial research and education. Other use needs the permission of the owners of the data",
            "listed below; the project cannot give it. (The project's code, which made and runs these weights,",
            "is under the Apache License, Version 2.0.)",
        ]
    lines += [
        "",
        "The weights come without warranty of any kind. In no event are their makers liable for any claim or",
        "damage that arises from their use.",
        "",
        "Trained on, with the terms as their sources state them:",
    ]
    lines += [f"- {use.name}: {use.what or 'no description'}. {use.licence}." for use in uses] or [
        "- nothing is recorded."
    ]
    for row in card.teachers:
        terms = row.get("licence", "licence not recorded")
        lines.append(f"- output of {row.get('name', 'a teacher')}: {terms}.")
    return "\n".join(lines) + "\n"


def _commercial(card: ModelCard) -> bool:
    return bool(card.data) and all(use.filled().commercial for use in card.data)


def _licence_name(card: ModelCard) -> str:
    return "Apache-2.0" if _commercial(card) else "Non-commercial research and education"


def _data(card: ModelCard) -> str:
    if not card.data:
        return "None recorded."
    rows = [use.filled() for use in card.data]
    return _table(
        [
            {"set": u.name, "amount": u.amount, "what": u.what, "licence as stated": u.licence}
            for u in rows
        ]
    )


def _part(part: Any) -> str:
    """Return a part's kind and settings; of switches, those that are on."""
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.name != "kind"}
    said = [
        name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}"
        for name, value in values.items()
        if value is not False
    ]
    return f"{part.kind} ({', '.join(said)})" if said else str(part.kind)


def _measured(figures: Figures | None) -> str:
    if figures is None or not figures.rows:
        return "Not measured."
    return f"{figures.protocol}\n\n{_table(figures.rows)}"


def _parity(parity: Mapping[str, Any] | None) -> str:
    if parity is None:
        return "Not measured."
    measured = parity["onnxruntime"]
    rows = []
    halves = {entry["clip"]: entry for entry in measured.get("fp16_trajectories", ())}
    for outputs, trajectory in zip(measured["outputs"], measured["trajectories"], strict=True):
        half = halves.get(outputs["clip"])
        rows.append(
            {
                "clip": outputs["clip"],
                "frames": outputs["frames"],
                "largest difference of box (crop px)": outputs["max_difference"]["result.box"],
                "of score": outputs["max_difference"]["result.score"],
                "free-running: median IoU": trajectory["median_iou"],
                "least IoU": trajectory["min_iou"],
                "the network's own noise": trajectory.get("noise", {}).get("median_iou", "-"),
                "first divergence": "none"
                if trajectory["first_divergence"] is None
                else f"frame {trajectory['first_divergence']}",
                "FP16, free-running: median IoU": "-" if half is None else half["median_iou"],
            }
        )
    return f"{parity['reference']} against {measured['version']}.\n\n{_table(rows)}"


def _table(rows: Sequence[Row]) -> str:
    """Return a Markdown table; columns in the order in which the rows name them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _figures(value: Any, where: str) -> Figures:
    values = _mapping(value, where)
    _known(values, ["protocol", "rows"], where)
    missing = [key for key in ("protocol", "rows") if key not in values]
    if missing:
        raise CardError(f"{where}.{missing[0]}: is missing: numbers without a protocol say nothing")
    rows = _items(values["rows"], f"{where}.rows")
    return Figures(
        _text(values["protocol"], f"{where}.protocol"),
        tuple(_mapping(row, f"{where}.rows[{i}]") for i, row in rows),
    )


def _data_use(value: Any, where: str) -> DataUse:
    if isinstance(value, str):
        return DataUse(value)
    values = _mapping(value, where)
    _known(values, [f.name for f in dataclasses.fields(DataUse)], where)
    if "name" not in values:
        raise CardError(f"{where}.name: is missing")
    for key, item in values.items():
        if key == "commercial":
            if not isinstance(item, bool):
                raise CardError(f"{where}.commercial: true or false is wanted, got {item!r}")
        else:
            _text(item, f"{where}.{key}")
    return DataUse(**values)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise CardError(f"{where}: a mapping is wanted, got {value!r:.100}")
    return dict(value)


def _items(value: Any, where: str) -> list[tuple[int, Any]]:
    if not isinstance(value, (list, tuple)):
        raise CardError(f"{where}: a list is wanted, got {value!r:.100}")
    return list(enumerate(value))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise CardError(f"{where}: text is wanted, got {value!r:.100}")
    return value


def _known(values: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in values:
        if key not in keys:
            raise CardError(f"{where}.{key}: unknown; known keys are {', '.join(keys)}")
