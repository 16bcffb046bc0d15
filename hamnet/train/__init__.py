"""Losses, metrics, checkpoints and the training run."""
