"""The network: kernels, interaction, block head; it never knows which DFT code made the data."""
