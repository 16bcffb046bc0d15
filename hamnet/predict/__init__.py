"""From a checkpoint and a structure to H and S."""
