"""PySCF: start its SCF from a prediction.

Example:
    >>> mf = dft.RKS(mol, xc="pbe")  # doctest: +SKIP
    >>> mf.kernel(guess(mf, "model.ckpt"))  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.predict.predictor import Predictor, load
from hamnet.predict.scf_guess import Guess, scf_guess

__all__ = ["Guess", "guess", "scf_guess"]
_log = logging.getLogger(__name__)


def guess(mf: Any, model: Predictor | Path | str) -> NDArray[np.float64]:
    """dm0 for `mf.kernel(dm0)`: the predicted density, or minao's where the prediction is no good.

    The Fock build made to judge the density is handed over to `mf`, whose first one it saves: at most one Fock build
    more than plain PySCF in all (two where the model learnt H - H0 with another functional than that of `mf`). Only
    `mf` itself, unchanged, gets it: copies made afterwards (`mf.density_fit()`, `mf.newton()`) may start from the
    density, and build all by themselves.

    Args:
        mf: RHF or RKS object of a molecule in the model's basis, not run.
        model: checkpoint, or what `hamnet.load` gives.

    Raises:
        BasisError: another basis than the model's.
        PhysicsError: unpaired electrons or a charge that the model has not seen.
    """
    found = scf_guess(mf, model if isinstance(model, Predictor) else load(model))
    found.hand_over(mf)
    other = "" if found.minao_commutator is None else f", minao {found.minao_commutator:.3g} eV"
    _log.info("start from %s: commutator of the prediction %.3g eV%s", found.origin, found.commutator, other)
    return found.density
