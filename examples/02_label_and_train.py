"""Make PySCF labels of water molecules and train on them: everything from nothing, in minutes.

Run: python examples/02_label_and_train.py [NUMBER] [MINUTES]
"""

import sys
from pathlib import Path

import numpy as np
from ase.build import molecule

from hamnet.config import config_from_dict
from hamnet.train.run import train
from hamnet_preprocess.collect import collect
from hamnet_preprocess.label import LabelSettings, label_all

# Processes that label are started afresh and import this file again: only the first may run it.
if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0

    rng = np.random.default_rng(0)
    structures = []
    for n in range(number):
        water = molecule("H2O")
        water.positions += rng.normal(0, 0.05, (3, 3))  # Angstrom: about what 300 K does
        structures.append((f"water{n:03d}", water))

    labels = label_all("pyscf", structures, Path("labels"), LabelSettings(basis="sto-3g", xc="pbe"), 1, print)
    print(f"{len(labels.written)} written, {len(labels.failed)} failed")
    collect("pyscf", [Path("labels")], Path("water.h5"), 1, False, lambda event: None)

    config = config_from_dict(
        {
            "data": {"store": "water.h5"},
            "network": {"layers": 1, "channels": 16},
            "training": {"output": "water_run", "max_minutes": minutes, "progress": False},
        }
    )
    result = train(config, on_line=print)
    print(
        f"H is off by {result.figures['hamiltonian_mae_meV']:.1f} meV on molecules not trained on: {result.checkpoint}"
    )
