"""Where bundles are looked for, and what is said when there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from siam_tracker_ros.bundle import BundleError, default_search_path, find_bundle, load_bundle


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    return folder


def install(toy, prefix):
    models = prefix / "share" / "siam_tracker_ros" / "models"
    shutil.copytree(toy, models / "toy")
    return models / "toy"


def test_the_share_of_each_prefix_comes_first_then_the_checkout_then_home(home, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/first:/second")
    folders = default_search_path()
    assert folders[:2] == [
        Path("/first/share/siam_tracker_ros/models"),
        Path("/second/share/siam_tracker_ros/models"),
    ]
    assert folders[2] == Path(__file__).resolve().parents[2] / "models"
    assert folders[3:] == [home / ".local/share/siam_tracker_ros/models"]


def test_by_name(toy, home, tmp_path, monkeypatch):
    in_home = home / ".local/share/siam_tracker_ros/models/toy"
    shutil.copytree(toy, in_home)
    assert find_bundle("toy") == in_home
    in_share = install(toy, tmp_path / "ws")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path / 'ws'}")
    assert find_bundle("toy") == in_share
    assert load_bundle("toy").path == in_share


def test_by_name_in_given_folders(toy):
    assert load_bundle("toy", [toy.parent]).path == toy


def test_by_path(toy, home, monkeypatch):
    assert find_bundle(toy) == toy
    assert find_bundle(str(toy)) == toy
    assert find_bundle(toy / "bundle.yaml") == toy
    monkeypatch.chdir(toy.parent)
    assert find_bundle("./toy").resolve() == toy
    assert find_bundle(Path("toy")).resolve() == toy
    shutil.copytree(toy, home / "toy")
    assert find_bundle("~/toy") == home / "toy"


def test_not_found_lists_where_it_looked_and_what_is_there(toy, home, tmp_path, monkeypatch):
    install(toy, tmp_path / "ws")
    (tmp_path / "ws/share/siam_tracker_ros/models/no_bundle").mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "ws"))
    with pytest.raises(BundleError) as caught:
        load_bundle("toy2")
    message = str(caught.value)
    assert "no model bundle called 'toy2'" in message
    assert f"{tmp_path}/ws/share/siam_tracker_ros/models: toy\n" in message
    assert f"{home}/.local/share/siam_tracker_ros/models: (no such folder)" in message


def test_a_folder_of_that_name_in_the_working_directory_is_hinted_at(toy, home, monkeypatch):
    monkeypatch.chdir(toy.parent)
    with pytest.raises(BundleError, match=r"to use it write \./toy"):
        find_bundle("toy", [home])


@pytest.mark.parametrize("name", ["", "two words", "a;b", "é"])
def test_what_is_no_name_is_refused(home, name):
    with pytest.raises(BundleError, match="is not a bundle's name"):
        find_bundle(name)


def test_a_path_without_a_bundle(tmp_path):
    with pytest.raises(BundleError, match="there is no such folder"):
        load_bundle(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"has no bundle\.yaml"):
        load_bundle(tmp_path / "empty")
