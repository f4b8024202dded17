"""Training: data sets, sampling, augmentation, labels, losses and the Lightning module."""
