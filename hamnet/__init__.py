"""hamnet: DFT Hamiltonians from an E(3)-equivariant network, and the physics in them."""
