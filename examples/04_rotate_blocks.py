"""Turn a crystal with its Hamiltonian: blocks turn with Wigner matrices, eigenvalues stay.

Run: python examples/04_rotate_blocks.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.transform import Rotation

import hamnet
from hamnet.core.bloch import BlochSum
from hamnet.core.rotation import rotate_blocks, wigner_d

calculation = hamnet.open_source(Path(sys.argv[1]))[0][1]()
rotation = Rotation.from_rotvec([0.3, -0.5, 0.7]).as_matrix()
print("p orbitals (y, z, x) turn with\n", wigner_d(1, rotation).round(3))

# Each block of shells l1 and l2 becomes D(l1) H D(l2)^T: this is what the network obeys exactly.
turned_h = rotate_blocks(calculation.hamiltonian, rotation)
turned_s = rotate_blocks(calculation.overlap, rotation)

k = np.array([0.1, 0.2, 0.0])
before = eigh(BlochSum(calculation.hamiltonian).dense(k), BlochSum(calculation.overlap).dense(k), eigvals_only=True)
after = eigh(BlochSum(turned_h).dense(k), BlochSum(turned_s).dense(k), eigvals_only=True)
print(f"largest change of an eigenvalue: {abs(after - before).max():.1e} eV")
