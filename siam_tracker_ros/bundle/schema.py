"""Schema 1 of bundle.yaml: plain data <-> :class:`Bundle`; what is wrong is named by its field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from siam_tracker_ros.bundle.find import NAME_PATTERN
from siam_tracker_ros.bundle.types import (
    HOST_TUNING,
    MAX_GRAPH_BYTES,
    NEXT,
    PRESENCE_FEATURES,
    SCHEMA,
    Bundle,
    BundleError,
    FileEntry,
    GraphSpec,
    PresenceSpec,
    TensorSpec,
)
from siam_tracker_ros.geometry import CropSpec

PADDING = "first_frame_mean"
DTYPES = ("float32", "float16", "uint8", "int32", "int64", "bool")
TRACKER_FIELDS = ("schema", "name", "tracker", "crop", "graphs", "tuning", "presence", "files")
OPTIONAL_FIELDS = ("precisions", "provenance")
PROVENANCE_FIELDS = ("config", "data_manifest", "revision", "command", "metrics", "teachers")

_TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_ELEMENTS = 1 << 28


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases (a short file could stand for gigabytes) or repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases are not allowed", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is given twice", node.start_mark
            )
        return mapping


class _Dumper(yaml.SafeDumper):
    """safe_dump that never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str, where: Path) -> Any:
    """Return the plain data of a YAML text.

    Raises:
        BundleError: naming ``where`` and what is wrong with the text.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{where}: not readable as YAML: {detail}") from error


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Return bundle data as YAML text.

    Raises:
        BundleError: if a value is no plain data (text, numbers, lists, mappings).
    """
    try:
        return yaml.dump(
            dict(data), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110
        )
    except yaml.representer.RepresenterError as error:
        raise BundleError(f"bundle.yaml cannot hold {error.args[1]!r:.100}") from error


def parse_bundle(data: Any, where: Path) -> Bundle:
    """Return the bundle that the plain data of a bundle.yaml describes; files are not looked at.

    Args:
        data: what the YAML text holds.
        where: the bundle.yaml, for messages; its parent becomes the bundle's path.

    Raises:
        BundleError: naming file and field.
    """
    read = _Reader(where)
    top = read.mapping(data, "")
    schema = read.integer(top.get("schema"), "schema", 1, 1 << 31)
    if schema > SCHEMA:
        raise read.error(
            "schema",
            f"{schema} is newer than this version of siam_tracker_ros reads ({SCHEMA}): "
            "install a newer version",
        )
    read.fields(top, "", TRACKER_FIELDS, OPTIONAL_FIELDS)

    crop_data = read.mapping(top["crop"], "crop")
    read.fields(crop_data, "crop", ("template", "search", "context", "padding"), ("rule",))
    if crop_data["padding"] != PADDING:
        raise read.error("crop.padding", f"must be {PADDING}, got {crop_data['padding']!r}")
    try:
        crop = CropSpec(
            template=read.integer(crop_data["template"], "crop.template", 1, 1 << 20),
            search=read.integer(crop_data["search"], "crop.search", 1, 1 << 20),
            context=read.number(crop_data["context"], "crop.context"),
            rule=crop_data.get("rule", "context"),
        )
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error

    files = {
        read.file_name(name, "files"): _file_entry(read, entry, f"files.{name}")
        for name, entry in read.mapping(top["files"], "files").items()
    }
    graph_data = read.mapping(top["graphs"], "graphs")
    read.fields(graph_data, "graphs", ("template", "search"))
    graphs = {
        name: _graph(read, entry, f"graphs.{name}", files) for name, entry in graph_data.items()
    }
    tuning = {
        read.word(name, "tuning"): read.number(value, f"tuning.{name}")
        for name, value in read.mapping(top["tuning"], "tuning").items()
    }
    bundle = Bundle(
        path=where.parent,
        name=read.pattern(top["name"], "name", NAME_PATTERN),
        tracker=read.word(top["tracker"], "tracker"),
        crop=crop,
        graphs=graphs,
        tuning=tuning,
        presence=_presence(read, top["presence"]),
        precisions=_precisions(read, top.get("precisions", {}), graphs, files),
        files=files,
        provenance=_provenance(read, top.get("provenance", {})),
    )
    _check_graph_contract(read, bundle)
    return bundle


def bundle_data(bundle: Bundle) -> dict[str, Any]:
    """Return the plain data of bundle.yaml for ``bundle``; the inverse of :func:`parse_bundle`."""

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in specs]

    presence = bundle.presence
    presence_data: dict[str, Any] = {"kind": presence.kind}
    if presence.kind == "logistic":
        presence_data.update(
            features=list(presence.features), weights=list(presence.weights), bias=presence.bias
        )
    presence_data.update(found=presence.found, lost=presence.lost)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "name": bundle.name,
        "tracker": bundle.tracker,
        "crop": {
            "template": bundle.crop.template,
            "search": bundle.crop.search,
            "context": bundle.crop.context,
            **({} if bundle.crop.rule == "context" else {"rule": bundle.crop.rule}),
            "padding": PADDING,
        },
        "graphs": {
            name: {
                "file": graph.file,
                "inputs": tensors(graph.inputs),
                "outputs": tensors(graph.outputs),
            }
            for name, graph in bundle.graphs.items()
        },
    }
    if bundle.precisions:
        data["precisions"] = {name: dict(files) for name, files in bundle.precisions.items()}
    data["tuning"] = dict(bundle.tuning)
    data["presence"] = presence_data
    data["files"] = {
        name: {"sha256": entry.sha256, "bytes": entry.bytes} for name, entry in bundle.files.items()
    }
    if bundle.provenance:
        data["provenance"] = dict(bundle.provenance)
    return data


class _Reader:
    """Takes plain data apart and knows which file and field it is about."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def error(self, field: str, message: str) -> BundleError:
        return BundleError(f"{self.where}: {field + ': ' if field else ''}{message}")

    def mapping(self, value: Any, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(field, f"must be a mapping, got {_kind(value)}")
        for key in value:
            if not isinstance(key, str):
                raise self.error(field, f"keys must be text, got {key!r}")
        return value

    def fields(
        self,
        value: Mapping[str, Any],
        field: str,
        required: Sequence[str],
        optional: Sequence[str] = (),
    ) -> None:
        """Refuse missing and unknown fields."""
        prefix = f"{field}." if field else ""
        known = ", ".join((*required, *optional))
        for name in value:
            if name not in required and name not in optional:
                raise self.error(prefix + name, f"unknown field; schema {SCHEMA} has {known}")
        for name in required:
            if name not in value:
                raise self.error(prefix + name, "is missing")

    def sequence(self, value: Any, field: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.error(field, f"must be a list, got {_kind(value)}")
        return value

    def integer(self, value: Any, field: str, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(field, f"must be a whole number, got {_kind(value)}")
        if not low <= value <= high:
            raise self.error(field, f"must be in [{low}, {high}], got {value}")
        return value

    def number(self, value: Any, field: str, low: float = -1e9, high: float = 1e9) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(field, f"must be a number, got {_kind(value)}")
        # A whole number may be too large for a float: compare before converting.
        if not low <= value <= high or not math.isfinite(value):
            raise self.error(field, f"must be a number in [{low:g}, {high:g}], got {value}")
        return float(value)

    def pattern(self, value: Any, field: str, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.error(field, f"must be a name like {pattern.pattern}, got {value!r:.100}")
        return value

    def word(self, value: Any, field: str) -> str:
        return self.pattern(value, field, _WORD)

    def file_name(self, value: Any, field: str) -> str:
        """Return a relative path that stays inside the bundle."""
        if not isinstance(value, str) or not value:
            raise self.error(field, f"must be a file's name, got {_kind(value)}")
        path = PurePosixPath(value)
        if (
            path.is_absolute()
            or "\\" in value
            or "\0" in value
            or ":" in value
            or ".." in path.parts
            or str(path) != value
        ):
            raise self.error(
                field, f"{value!r:.200} must be a plain path inside the bundle's folder"
            )
        return value

    def listed_file(self, value: Any, field: str, files: Mapping[str, FileEntry]) -> str:
        name = self.file_name(value, field)
        if name not in files:
            raise self.error(field, f"{name} is not listed under files")
        return name


def _kind(value: Any) -> str:
    """Name a value's type for a message."""
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.100}"


def _file_entry(read: _Reader, value: Any, field: str) -> FileEntry:
    entry = read.mapping(value, field)
    read.fields(entry, field, ("sha256", "bytes"))
    digest = entry["sha256"]
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise read.error(f"{field}.sha256", "must be 64 lower-case hexadecimal digits")
    return FileEntry(digest, read.integer(entry["bytes"], f"{field}.bytes", 0, MAX_GRAPH_BYTES))


def _graph(read: _Reader, value: Any, field: str, files: Mapping[str, FileEntry]) -> GraphSpec:
    graph = read.mapping(value, field)
    read.fields(graph, field, ("file", "inputs", "outputs"))
    return GraphSpec(
        file=read.listed_file(graph["file"], f"{field}.file", files),
        inputs=_tensors(read, graph["inputs"], f"{field}.inputs"),
        outputs=_tensors(read, graph["outputs"], f"{field}.outputs"),
    )


def _tensors(read: _Reader, value: Any, field: str) -> tuple[TensorSpec, ...]:
    tensors: list[TensorSpec] = []
    for index, item in enumerate(read.sequence(value, field)):
        here = f"{field}[{index}]"
        entry = read.mapping(item, here)
        read.fields(entry, here, ("name", "dtype", "shape"))
        name = read.pattern(entry["name"], f"{here}.name", _TENSOR_NAME)
        if any(tensor.name == name for tensor in tensors):
            raise read.error(f"{here}.name", f"{name} is given twice")
        if entry["dtype"] not in DTYPES:
            raise read.error(
                f"{here}.dtype", f"must be one of {', '.join(DTYPES)}, got {entry['dtype']!r:.100}"
            )
        shape = tuple(
            read.integer(side, f"{here}.shape", 1, _MAX_ELEMENTS)
            for side in read.sequence(entry["shape"], f"{here}.shape")
        )
        if len(shape) > 8 or math.prod(shape) > _MAX_ELEMENTS:
            raise read.error(f"{here}.shape", f"{list(shape)} is too large")
        tensors.append(TensorSpec(name, entry["dtype"], shape))
    return tuple(tensors)


def _presence(read: _Reader, value: Any) -> PresenceSpec:
    field = "presence"
    data = read.mapping(value, field)
    kind = data.get("kind")
    if kind == "uncalibrated":
        read.fields(data, field, ("kind", "found", "lost"))
    elif kind == "logistic":
        read.fields(data, field, ("kind", "features", "weights", "bias", "found", "lost"))
    else:
        raise read.error(f"{field}.kind", f"must be uncalibrated or logistic, got {kind!r:.100}")
    found = read.number(data["found"], f"{field}.found", 0.0, 1.0)
    lost = read.number(data["lost"], f"{field}.lost", 0.0, 1.0)
    if lost > found:
        raise read.error(f"{field}.lost", f"must not be above found ({found:g}), got {lost:g}")
    if kind == "uncalibrated":
        return PresenceSpec(kind, found=found, lost=lost)
    features = read.sequence(data["features"], f"{field}.features")
    for feature in features:
        if feature not in PRESENCE_FEATURES:
            raise read.error(
                f"{field}.features",
                f"unknown feature {feature!r:.100}; there are {', '.join(PRESENCE_FEATURES)}",
            )
    if len(set(features)) != len(features) or not features:
        raise read.error(f"{field}.features", "must name at least one feature, each once")
    weights = tuple(
        read.number(weight, f"{field}.weights")
        for weight in read.sequence(data["weights"], f"{field}.weights")
    )
    if len(weights) != len(features):
        raise read.error(
            f"{field}.weights",
            f"must be one for each feature ({len(features)}), got {len(weights)}",
        )
    bias = read.number(data["bias"], f"{field}.bias")
    return PresenceSpec(kind, tuple(features), weights, bias, found, lost)


def _precisions(
    read: _Reader, value: Any, graphs: Mapping[str, GraphSpec], files: Mapping[str, FileEntry]
) -> dict[str, dict[str, str]]:
    precisions = {}
    for name, entry in read.mapping(value, "precisions").items():
        field = f"precisions.{name}"
        read.word(name, "precisions")
        data = read.mapping(entry, field)
        read.fields(data, field, tuple(graphs))
        precisions[name] = {
            graph: read.listed_file(file, f"{field}.{graph}", files) for graph, file in data.items()
        }
    return precisions


def _provenance(read: _Reader, value: Any) -> dict[str, Any]:
    data = read.mapping(value, "provenance")
    read.fields(data, "provenance", (), PROVENANCE_FIELDS)
    return data


def _check_graph_contract(read: _Reader, bundle: Bundle) -> None:
    """Check names, dtypes and shapes of what host and graphs say to each other."""
    crop = bundle.crop
    template, search = bundle.graphs["template"], bundle.graphs["search"]
    picture = {"template": (crop.template,) * 2 + (3,), "search": (crop.search,) * 2 + (3,)}
    scalars = {"previous_size": (2,), "first": (1,)}
    required_results = {
        "result.box": (4,),
        "result.score": (1,),
        "result.runner_up": (1,),
        "result.peak": (2,),
    }

    def expect(tensor: TensorSpec, field: str, dtype: str, shape: tuple[int, ...]) -> None:
        if tensor.dtype != dtype or tensor.shape != shape:
            raise read.error(
                field,
                f"{tensor.name} must be {dtype} {list(shape)}, "
                f"got {tensor.dtype} {list(tensor.shape)}",
            )

    for name, graph in bundle.graphs.items():
        field = f"graphs.{name}.inputs"
        if graph.input(name) is None:
            raise read.error(field, f"{name} is missing")
        for tensor in graph.inputs:
            if tensor.name == name:
                expect(tensor, field, "uint8", picture[name])
            elif tensor.name == "memory" and name == "search":
                expect(tensor, field, "uint8", picture["search"])
            elif tensor.name == "memory_size" and name == "search" and graph.input("memory"):
                expect(tensor, field, "float32", (2,))
            elif tensor.name in scalars and (name == "search" or tensor.name == "previous_size"):
                expect(tensor, field, "float32", scalars[tensor.name])
            elif tensor.name.startswith("tuning."):
                expect(tensor, field, "float32", (1,))
                if tensor.name[len("tuning.") :] not in bundle.tuning:
                    raise read.error(
                        field, f"{tensor.name} has no default: it is missing under tuning"
                    )
            elif not (tensor.name.startswith("state.") and name == "search"):
                raise read.error(field, f"{tensor.name} is no input that a {name} graph may have")

    for tensor in template.outputs:
        if not tensor.name.startswith("state.") or tensor.name.endswith(NEXT):
            raise read.error(
                "graphs.template.outputs",
                f"{tensor.name}: a template graph's outputs are called state.<name>",
            )
    for name, shape in required_results.items():
        result = search.output(name)
        if result is None:
            raise read.error("graphs.search.outputs", f"{name} is missing")
        expect(result, "graphs.search.outputs", "float32", shape)
    for tensor in search.outputs:
        state = tensor.name.startswith("state.") and tensor.name.endswith(NEXT)
        if tensor.name not in required_results and not state:
            raise read.error(
                "graphs.search.outputs",
                f"{tensor.name} is no output that a search graph may have "
                f"(result.*, state.<name>{NEXT})",
            )
    _check_states(read, template, search)
    used = bundle.graph_tuning | set(HOST_TUNING)
    for name, value in bundle.tuning.items():
        if name not in used:
            raise read.error(
                f"tuning.{name}",
                f"is read by no graph and is none of {', '.join(HOST_TUNING)}",
            )
        high = 10.0 if name == "penalty" else 1.0
        if name in HOST_TUNING and not 0.0 <= value <= high:
            raise read.error(f"tuning.{name}", f"must be in [0, {high:g}], got {value:g}")


def _check_states(read: _Reader, template: GraphSpec, search: GraphSpec) -> None:
    """Check that every state that is read is written, alike, and the other way round."""
    read_states = {t.name: t for t in search.inputs if t.name.startswith("state.")}
    for name, tensor in read_states.items():
        sources = [template.output(name), search.output(name + NEXT)]
        if sources == [None, None]:
            raise read.error(
                "graphs.search.inputs",
                f"{name} is written neither by the template graph nor by the search graph "
                f"(as {name}{NEXT})",
            )
        for graph, source in zip(("template", "search"), sources, strict=True):
            if source is not None and (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
                raise read.error(
                    f"graphs.{graph}.outputs",
                    f"{source.name} is {source.dtype} {list(source.shape)}, "
                    f"the search graph reads {name} as {tensor.dtype} {list(tensor.shape)}",
                )
        if sources[0] is None and search.input("first") is None:
            raise read.error(
                "graphs.search.inputs",
                f"first is missing: {name} has no value before the first frame",
            )
    for graph, spec in (("template", template), ("search", search)):
        for tensor in spec.outputs:
            name = tensor.name[: -len(NEXT)] if graph == "search" else tensor.name
            if name.startswith("state.") and name not in read_states:
                raise read.error(
                    f"graphs.{graph}.outputs", f"{tensor.name} is read by no graph: remove it"
                )
