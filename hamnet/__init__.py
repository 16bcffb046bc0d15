"""hamnet: DFT Hamiltonians from an E(3)-equivariant network, and the physics in them.

>>> import hamnet
>>> model = hamnet.load("model.ckpt")  # doctest: +SKIP
>>> hamiltonian = model.predict(atoms)  # doctest: +SKIP

Names are imported when they are first used, so that `import hamnet` takes milliseconds and no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hamnet.bands import compute_bands
    from hamnet.config import load_config
    from hamnet.core.basis import OrbitalBasis
    from hamnet.core.blocks import BlockMatrix
    from hamnet.core.calculation import Calculation
    from hamnet.core.spin import Spin
    from hamnet.core.structure import AtomicStructure
    from hamnet.data.store import Store
    from hamnet.errors import HamnetError
    from hamnet.predict.predictor import Predictor, load
    from hamnet_preprocess.sources import open_source

_HOMES = {
    "AtomicStructure": "hamnet.core.structure",
    "BlockMatrix": "hamnet.core.blocks",
    "Calculation": "hamnet.core.calculation",
    "HamnetError": "hamnet.errors",
    "OrbitalBasis": "hamnet.core.basis",
    "Predictor": "hamnet.predict.predictor",
    "Spin": "hamnet.core.spin",
    "Store": "hamnet.data.store",
    "compute_bands": "hamnet.bands",
    "load": "hamnet.predict.predictor",
    "load_config": "hamnet.config",
    "open_source": "hamnet_preprocess.sources",
}

__all__ = [
    "AtomicStructure",
    "BlockMatrix",
    "Calculation",
    "HamnetError",
    "OrbitalBasis",
    "Predictor",
    "Spin",
    "Store",
    "compute_bands",
    "load",
    "load_config",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("hamnet")
    if name not in _HOMES:
        raise AttributeError(f"module 'hamnet' has no attribute {name!r}; public names are {__all__}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
