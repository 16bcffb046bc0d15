"""Checkpoints of training: the model file (kept below `predict`, which loads it) under the name that training uses."""

from hamnet.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]
