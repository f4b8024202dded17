"""The same toy bundle and clip as in the evaluation's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FILE = Path(__file__).resolve().parents[1] / "evaluation" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("evaluation_fixtures", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
sys.modules["evaluation_fixtures"] = _FIXTURES
_SPEC.loader.exec_module(_FIXTURES)

colour_bundle = _FIXTURES.colour_bundle
square_clip = _FIXTURES.square_clip
write_square_clip = _FIXTURES.write_square_clip
