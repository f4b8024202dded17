"""The model card and the licence of the weights say what is known, and what is not."""

from __future__ import annotations

import pytest

from siam_tracker_ros.deployment.data_terms import KNOWN_SETS, terms_of
from siam_tracker_ros.deployment.model_card import CardError, ModelCard, licence_text, model_card

FULL = {
    "summary": "The default model.",
    "data": ["drone_visible", {"name": "coco256", "amount": "256 images"}],
    "teachers": [{"name": "FEAR-XS", "use": "boxes on labelled pairs", "licence": "MIT"}],
    "training": {"steps": 5000, "device": "2 CPU cores"},
    "metrics": {
        "protocol": "One pass on 24 sequences.",
        "rows": [{"tracker": "this", "AUC": 0.68}, {"tracker": "NanoTrack v2", "AUC": 0.665}],
    },
    "ablation": {
        "protocol": "The same recipe without a part.",
        "rows": [
            {"model": "whole", "AUC": 0.68},
            {"model": "without the channel term of SVC-Corr", "AUC": 0.67},
            {"model": "without ARM", "AUC": None},
        ],
    },
    "speed": {"protocol": "ONNX Runtime, 2 threads.", "rows": [{"device": "EPYC", "fps": 250}]},
    "limits": ["Small targets | thin ones."],
}


def test_card_shows_everything_it_was_given(small):
    text = model_card("small", small, small.default_tuning, ModelCard.from_dict(FULL), None)
    assert text.startswith("# small\n\nThe default model.\n")
    assert "| backbone | mobilenetv2_100 |" in text
    assert "| tuning | window 0.2, penalty 0.1, arm 1, size_rate 0.3, size_bias 0.5 |" in text
    assert "| coco256 | 256 images | 256 photographs of COCO 2017" in text
    assert "| FEAR-XS | boxes on labelled pairs | MIT |" in text
    assert "| steps | 5000 |" in text
    assert "One pass on 24 sequences.\n\n| tracker | AUC |\n| --- | --- |\n| this | 0.68 |" in text
    assert "| without the channel term of SVC-Corr | 0.67 |" in text
    assert "| without ARM | not measured |" in text
    assert "| EPYC | 250 |" in text
    assert "- Small targets | thin ones." in text
    assert "Non-commercial research and education. See LICENSE." in text


def test_card_of_nothing_says_that_nothing_is_known(small):
    text = model_card("small", small, small.default_tuning, ModelCard(), None)
    for title in ("Accuracy", "Without its parts", "Speed", "Torch against the exported graphs"):
        assert f"## {title}\n\nNot measured.\n" in text
    assert "## Training data\n\nNone recorded.\n" in text


def test_card_shows_parity(small, small_export):
    _, parity = small_export
    text = model_card("small", small, small.default_tuning, ModelCard(), parity)
    (trajectory,) = parity["onnxruntime"]["trajectories"]
    assert f"| {trajectory['clip']} | 30 |" in text
    assert f"| {trajectory['median_iou']:.4g} |" in text
    assert text.count("\n| synthetic") == 1


def test_table_cells_cannot_break_the_table(small):
    card = ModelCard.from_dict({"training": {"a|b": "c\nd|e"}})
    text = model_card("small", small, small.default_tuning, card, None)
    assert "| a\\|b | c d\\|e |" in text


def test_licence_follows_the_data():
    free = ModelCard.from_dict({"data": ["drone_visible", "caltech101"]})
    assert "Apache License, Version 2.0" in licence_text("a", free).splitlines()[2]
    for data in (["drone_visible", "bsds500"], ["drone_visible", "somebody's own"], []):
        text = licence_text("a", ModelCard.from_dict({"data": data}))
        assert "non-commercial research and education" in text
        for name in data:
            assert f"- {name}: " in text
    own = {"data": [{"name": "own", "what": "our pictures", "licence": "ours", "commercial": True}]}
    assert "non-commercial" not in licence_text("a", ModelCard.from_dict(own))


def test_teachers_terms_are_in_the_licence():
    text = licence_text("a", ModelCard.from_dict(FULL))
    assert "- output of FEAR-XS: MIT." in text


def test_unknown_set_is_not_free():
    assert not terms_of("never heard of").commercial
    assert {name for name, terms in KNOWN_SETS.items() if terms.commercial} == {
        "caltech101",
        "drone_visible",
    }


@pytest.mark.data
def test_every_set_of_the_data_folder_is_known(data_root):
    names = {file.stem for file in (data_root / "train").glob("*.tar")}
    assert names and names <= set(KNOWN_SETS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sumary": ""}, r"card\.sumary: unknown; known keys are summary, data"),
        ({"summary": 3}, r"card\.summary: text is wanted, got 3"),
        ({"data": "coco256"}, r"card\.data: a list is wanted"),
        ({"data": [{"amount": "3"}]}, r"card\.data\[0\]\.name: is missing"),
        ({"data": [{"name": "a", "licens": ""}]}, r"card\.data\[0\]\.licens: unknown"),
        ({"data": [{"name": "a", "commercial": "yes"}]}, r"commercial: true or false is wanted"),
        ({"metrics": {"rows": []}}, r"card\.metrics\.protocol: is missing"),
        ({"speed": {"protocol": "", "rows": [3]}}, r"card\.speed\.rows\[0\]: a mapping is wanted"),
        ([], r"card: a mapping is wanted"),
    ],
)
def test_wrong_cards_name_their_key(values, message):
    with pytest.raises(CardError, match=message):
        ModelCard.from_dict(values)


def test_later_facts_replace_earlier_ones_key_by_key():
    card = ModelCard.from_dict(FULL).with_changes({"summary": "Better.", "speed": None})
    assert card.summary == "Better."
    assert card.speed is None
    assert card.metrics == ModelCard.from_dict(FULL).metrics
