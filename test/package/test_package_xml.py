from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()


def declared() -> set[str]:
    return {element.text for element in PACKAGE if element.tag.endswith("depend")}


def known_keys() -> set[str]:
    lines = (ROOT / "test/package/rosdep_keys.txt").read_text().splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def ros_imports() -> set[str]:
    """The top-level names that nodes and launch files import."""
    found = set()
    for folder in ("siam_tracker_ros/nodes", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    found.add(node.module.split(".")[0])
    return found


def test_rosdep_resolves_every_key() -> None:
    assert declared() - known_keys() == set()


def test_every_ros_package_that_is_imported_is_declared() -> None:
    # What is optional (cv_bridge) is imported where it is there; it is neither listed nor declared.
    assert (ros_imports() & known_keys()) - declared() == set()


def test_every_message_package_that_is_imported_was_looked_up() -> None:
    messages = {name for name in ros_imports() if re.search(r"_(msgs|srvs|interfaces)$", name)}
    assert messages - known_keys() == set()


def test_version_is_the_packages() -> None:
    from siam_tracker_ros import __version__

    assert PACKAGE.findtext("version") == __version__


def test_license_is_there() -> None:
    licence = PACKAGE.find("license")
    assert licence is not None
    assert licence.text == "Apache-2.0"
    assert "Apache License" in (ROOT / licence.attrib["file"]).read_text()
