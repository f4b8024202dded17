"""``siam-tracker costs``."""

from __future__ import annotations

import json

import yaml
from typer.testing import CliRunner

from siam_tracker_ros.cli.main import app
from siam_tracker_ros.deployment.costs import measure_costs
from siam_tracker_ros.networks.checkpoint import save_network


def test_costs_of_a_configuration_and_of_its_checkpoint(small, small_config, tmp_path):
    config, checkpoint = tmp_path / "small.yaml", tmp_path / "small.safetensors"
    plain = json.loads(json.dumps(small_config.to_dict()))
    config.write_text(yaml.safe_dump({"network": plain}))
    save_network(checkpoint, small)
    expected = {
        part.name: {
            "parameters": part.parameters,
            "template_macs": part.template_macs,
            "macs": part.macs,
        }
        for part in measure_costs(small).parts
    }
    for source in (("--config", config), ("--checkpoint", checkpoint)):
        out = tmp_path / "costs.json"
        words = ["costs", *map(str, source), "--out", str(out)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert "GMAC a frame" in result.output
        found = json.loads(out.read_text())
        training = found.pop("training", None)
        assert found == expected
        if source[0] == "--config":  # a template and two searches a sample, 20 x 4000 of them
            forward = sum(p["template_macs"] + 2 * p["macs"] for p in expected.values())
            assert training == {"samples": 80_000, "forward_macs": 80_000 * forward}
            assert "training: 80,000 samples of 1 + 2 crops" in result.output


def test_one_source_is_wanted(tmp_path):
    result = CliRunner().invoke(app, ["costs"])
    assert result.exit_code == 2
    assert "give either --config or --checkpoint" in result.stderr
