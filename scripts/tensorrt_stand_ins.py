#!/usr/bin/env python3
"""Makes what TensorRT's Python bindings link against and a machine without TensorRT and GPU lacks.

    tensorrt_stand_ins.py FOLDER     FOLDER holds tensorrt_bindings/; FOLDER/lib gets the libraries

Where the bindings lie alone, the libraries are empty: the module can be imported and looked at. Where TensorRT-RTX lies
beside them (onnxruntime_ep_nv_tensorrt_rtx/), they lead to it: parser and compiler work. A stand-in for the driver says
that there is no device. Needs gcc, nm and readelf.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

RTX = "onnxruntime_ep_nv_tensorrt_rtx"
NO_DEVICE = {"libcuda.so.1": 100, "libnvidia-ml.so.1": 9}
"""What every call returns: CUDA_ERROR_NO_DEVICE, NVML_ERROR_DRIVER_NOT_LOADED."""


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:3]))} ...: {done.stderr.strip()[:2000]}")
    return done.stdout


def undefined(library: Path) -> list[str]:
    lines = run("nm", "-D", "--undefined-only", library)
    return [symbol.split("@")[0] for symbol in re.findall(r" U (\S+)", lines)]


def build(folder: Path, name: str, source: str, options: Iterable[str | Path] = ()) -> None:
    file = folder / "source.c"
    file.write_text(source)
    # Options come last: a library is searched for what came before it.
    run("gcc", "-shared", "-fPIC", "-w", "-o", folder / name, f"-Wl,-soname,{name}", file, *options)
    file.unlink()


def make_empty(bindings: Path, out: Path) -> None:
    needed = re.findall(r"NEEDED.*\[(libnv.+?)\]", run("readelf", "-d", bindings))
    factories = [s for s in undefined(bindings) if re.match(r"(create|get|init)[A-Z]", s)]
    for name in needed:
        functions = factories if name.startswith("libnvinfer.so") else []
        build(
            out,
            name,
            "".join(f"void *{f}(void) {{ return 0; }}\n" for f in functions) + "int stand_in;\n",
        )


def make_leading_to_rtx(rtx: Path, out: Path) -> None:
    for stem in ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx"):
        real = next(rtx.glob(f"{stem}.so.*.*.*"))
        link = rtx / f"{stem}.so.1"
        if not link.exists():
            link.symlink_to(real.name)
    calls: dict[str, set[str]] = {name: set() for name in NO_DEVICE}
    for library in rtx.glob("*.so*"):
        for symbol in undefined(library):
            if re.match(r"cu[A-Z]", symbol):
                calls["libcuda.so.1"].add(symbol)
            elif symbol.startswith("nvml"):
                calls["libnvidia-ml.so.1"].add(symbol)
    for name, symbols in calls.items():
        build(
            out,
            name,
            "".join(f"int {s}(void) {{ return {NO_DEVICE[name]}; }}\n" for s in sorted(symbols)),
        )
    there = ("-Wl,--no-as-needed", f"-L{rtx}", f"-Wl,-rpath,$ORIGIN/../{rtx.name}")
    lax = ("-Wl,--allow-shlib-undefined", f"-Wl,-rpath-link,{rtx}")
    build(out, "libnvinfer.so.11", "int a;", (*there, "-l:libtensorrt_rtx.so.1"))
    build(
        out,
        "libnvonnxparser.so.11",
        "int b;",
        (*there, *lax, "-l:libtensorrt_onnxparser_rtx.so.1"),
    )
    plugins = "_Bool initLibNvInferPlugins(void *l, const char *n) { return 1; }\n"
    build(out, "libnvinfer_plugin.so.11", plugins)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    out = folder / "lib"
    out.mkdir(exist_ok=True)
    if (folder / RTX).is_dir():
        make_leading_to_rtx(folder / RTX, out)
    else:
        make_empty(folder / "tensorrt_bindings" / "tensorrt.so", out)


if __name__ == "__main__":
    main()
