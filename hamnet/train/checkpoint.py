"""The checkpoint file; the code stands in `hamnet.predict.checkpoint`, because predictions read it too."""

from hamnet.predict.checkpoint import Checkpoint, empty_model, load_checkpoint, save_checkpoint, write_torch

__all__ = ["Checkpoint", "empty_model", "load_checkpoint", "save_checkpoint", "write_torch"]
