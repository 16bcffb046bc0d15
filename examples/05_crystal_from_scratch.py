"""From a crystal to a trained model and its bands, with CP2K as the teacher: nothing but a structure is needed.

Run: python examples/05_crystal_from_scratch.py [NUMBER] [MINUTES]
Needs CP2K (apt-get install cp2k). As commands: docs/cp2k.md.
"""

import sys
from pathlib import Path

from ase.build import bulk

import hamnet
from hamnet.bands import band_path
from hamnet.config import config_from_dict
from hamnet.train.run import train
from hamnet_preprocess.collect import collect
from hamnet_preprocess.label import label_all
from hamnet_preprocess.label_cp2k import CP2KSettings
from hamnet_preprocess.perturb import PerturbSettings, perturb

if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0

    silicon = bulk("Si", a=5.43)
    cells = perturb(silicon, number, PerturbSettings(rattle=0.05, strain=0.02, seed=0))
    structures = [(f"si{n:03d}", cell) for n, cell in enumerate(cells)]

    # Coarse on purpose; docs/benchmarks.md says what each cutoff costs in noise.
    settings = CP2KSettings("SZV-MOLOPT-SR-GTH", kmesh=(2, 2, 2), cutoff=80, rel_cutoff=25, eps_default=1e-8)
    labels = label_all("cp2k", structures, Path("labels"), settings, 1, print)
    print(f"{len(labels.written)} written, {len(labels.failed)} failed")
    collect("cp2k", [Path("labels")], Path("si.h5"))

    config = config_from_dict(
        {
            "data": {"store": "si.h5"},
            "network": {"layers": 1, "channels": 16},
            "training": {"output": "si_run", "max_minutes": minutes, "progress": False},
        }
    )
    result = train(config, on_line=print)
    print(f"H is off by {result.figures['hamiltonian_mae_meV']:.1f} meV on cells not trained on: {result.checkpoint}")

    # The perfect crystal, and any supercell of it, was not among the training cells.
    calculation = hamnet.load(str(result.checkpoint)).calculation(silicon)
    bands = hamnet.compute_bands(calculation, band_path(calculation.structure, "auto", 60))
    print(f"predicted gap {bands.gap:.2f} eV" if not bands.is_metal else "predicted: a metal (train longer)")
