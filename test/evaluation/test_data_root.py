from __future__ import annotations

from pathlib import Path

import pytest

from siam_tracker_ros.evaluation.data_root import data_root, require_data


def test_the_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    assert data_root() == tmp_path
    (tmp_path / "peers").mkdir()
    assert require_data("peers") == tmp_path / "peers"
    with pytest.raises(FileNotFoundError, match=r"sequences is not in .*SIAM_TRACKER_DATA"):
        require_data("sequences")


def test_a_wrong_variable_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"SIAM_TRACKER_DATA is '.*none'"):
        data_root()


def test_without_it_the_folder_beside_the_repository(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SIAM_TRACKER_DATA", raising=False)
    found = data_root()
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    assert found == (beside if beside.is_dir() else None)
