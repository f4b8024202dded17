"""From a trained network to a model bundle: graphs, parity with torch, model card."""
