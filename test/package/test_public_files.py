"""The workflow for a public host and CITATION.cff name what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from siam_tracker_ros import __version__

ROOT = Path(__file__).resolve().parents[2]


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def workflow() -> dict[str, Any]:
    return read(".github/workflows/ci.yml")


def steps() -> list[dict[str, Any]]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def test_the_workflow_runs_on_the_ubuntu_of_each_distribution() -> None:
    services = read("docker/compose.yaml")["services"]
    for job in workflow()["jobs"].values():
        machines = {
            row["distro"]: (row["os"], row["image"]) for row in job["strategy"]["matrix"]["include"]
        }
        assert machines == {
            "humble": ("ubuntu-22.04", services["humble"]["build"]["args"]["BASE"]),
            "jazzy": ("ubuntu-24.04", services["jazzy"]["build"]["args"]["BASE"]),
        }
        assert "--shm-size" in job["container"]["options"]


def test_its_actions_are_pinned() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", name) for name in used), used


def test_its_commands_are_bash_and_name_what_exists() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set()
    for script in scripts:
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        done = subprocess.run(["bash", "-n", "-c", plain], capture_output=True, text=True)
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        targets |= set(re.findall(r"^make (\S+)", plain, re.MULTILINE))
        for path in re.findall(r"(?:scripts|requirements|test)/[\w./-]+", plain):
            assert (ROOT / path).exists(), path
    assert targets == {"setup", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    text = "\n".join(scripts)
    for command in ("rosdep install", "colcon build", "colcon test ", "colcon test-result"):
        assert command in text


def test_the_citation_has_this_version_and_the_four_papers() -> None:
    citation = read("CITATION.cff")
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert (str(citation["version"]), citation["license"]) == (__version__, "Apache-2.0")
    assert citation["message"] and citation["title"] and citation["authors"]
    papers = {paper["title"]: paper for paper in citation["references"]}
    assert len(papers) == 4
    trackers = set()
    for paper in papers.values():
        assert paper["type"] in ("article", "conference-paper")
        assert paper["authors"] and all(a["family-names"] for a in paper["authors"])
        assert 2019 <= paper["year"] <= 2022
        assert paper.get("journal") or paper["collection-title"]
        trackers.add(paper["scope"].split()[-1].rstrip("."))
    shipped = {
        read(f"models/{path.name}/bundle.yaml")["tracker"] for path in (ROOT / "models").iterdir()
    }
    assert trackers == shipped
