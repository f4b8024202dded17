"""PyTorch modules: backbones, necks, matching, heads, temporal parts and the trackers made of them."""
