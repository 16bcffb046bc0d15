"""Advice instead of hyper-parameters: the size of the network from the orbitals and the amount of data, with reasons.

What the user gives stands; the rest is chosen here. The numbers to tune stand in `PRESETS` and `LEAST_NUMBERS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hamnet.config import Config, NetworkConfig
from hamnet.core.basis import OrbitalBasis
from hamnet.core.files import whole_file
from hamnet.nn.dataset import StoreCollection
from hamnet.train.fitting import pair_counts


@dataclass(frozen=True)
class Preset:
    """Sizes of one preset.

    Args:
        layers, channels, body_order, radial_functions, radial_hidden: as in the configuration.
        lmax: least degree of the node features; the blocks of the basis may ask for more.
        reach: largest reach of the messages in Angstrom; orbitals may ask for less.
    """

    layers: int
    channels: int
    lmax: int
    body_order: int
    radial_functions: int
    radial_hidden: int
    reach: float


PRESETS = {
    "light": Preset(1, 16, 3, 2, 12, 32, 5.0),
    "medium": Preset(1, 32, 4, 3, 16, 64, 6.5),
    "large": Preset(2, 64, 4, 3, 16, 64, 8.0),
}
"""The one table of sizes."""
LEAST_NUMBERS = {"large": 3e7, "medium": 1e5, "light": 0.0}
"""A preset is chosen from so many numbers of H in the training part on."""
MOLECULE_REACH = 5.0
"""Reach (Angstrom) where orbitals have no radius: two bonds and a half."""


def is_open(config: Config) -> bool:
    """Whether any size of the network is left to advice: no network section, or a preset."""
    return "network" not in config.model_fields_set or config.network.preset is not None


def advise(config: Config, stores: StoreCollection, names: Sequence[str]) -> tuple[Config, list[str]]:
    """The configuration with every size of the network settled, and the reasons, a line each.

    Args:
        config: as the user gave it.
        stores: data.
        names: the training part.
    """
    if not is_open(config):
        return config, []
    counts = pair_counts(stores)
    block = _block_size(stores.basis)
    numbers = sum(counts[name] for name in names) * block
    asked = config.network.preset
    fitting = [name for name, least in LEAST_NUMBERS.items() if numbers >= least]
    size = fitting[0] if asked is None else asked
    lines = [f"network: {size}, " + ("as asked" if asked else f"for about {numbers:.1g} numbers to learn from")]
    chosen, reasons = _sizes(PRESETS[size], stores.basis)
    given = _given(config)
    lines += [f"  {key} {given.get(key, chosen[key])}: {'as given' if key in given else why}" for key, why in reasons]
    return with_network(config, NetworkConfig(**chosen)), lines


def with_network(config: Config, network: NetworkConfig) -> Config:
    """The configuration with this network, but for the keys that the user gave."""
    known = network.model_dump(exclude={"preset"})
    return config.model_copy(update={"network": NetworkConfig(**(known | _given(config)))})


def _given(config: Config) -> dict[str, Any]:
    """Keys of the network section that stand in the configuration."""
    return {key: getattr(config.network, key) for key in config.network.model_fields_set - {"preset"}}


def _sizes(preset: Preset, basis: OrbitalBasis) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Values for the configuration, and (key, reason)."""
    top = max(shell.l for species in basis.species for shell in species.shells)
    lmax = max(preset.lmax, 2 * top)
    radii = [species.radius for species in basis.species]
    known = [radius for radius in radii if radius is not None]
    if len(known) == len(radii):
        reach = min(preset.reach, 2 * max(known))
        why = "the preset's" if reach < 2 * max(known) else "orbitals do not reach further"
    else:
        reach, why = min(preset.reach, MOLECULE_REACH), "orbitals without a sharp radius"
    chosen = {
        "layers": preset.layers,
        "channels": preset.channels,
        "lmax": lmax,
        "message_cutoff": round(reach, 4),
        "body_order": preset.body_order,
        "radial_functions": preset.radial_functions,
        "radial_hidden": preset.radial_hidden,
    }
    asked = f"blocks of l = {top} with l = {top} hold degrees up to {2 * top}"
    reasons = [
        ("channels", "the preset's"),
        ("layers", f"atoms see as far as {preset.layers} times the messages' reach"),
        ("lmax", asked if 2 * top >= preset.lmax else f"{asked}; a pair must see what stands between its atoms"),
        ("message_cutoff", f"Angstrom, {why}"),
        ("body_order", "angles" if preset.body_order > 2 else "sums over neighbours alone, the cheapest"),
    ]
    return chosen, reasons


def _block_size(basis: OrbitalBasis) -> float:
    """Mean numbers in a block."""
    mean = float(basis.n_orbitals.mean())
    return mean * mean


def write_config(path: Path, config: Config) -> None:
    """Write a settled configuration as YAML, which `hamnet train` takes as it is."""
    tree = config.model_dump(mode="json", exclude_none=True)
    text = "# written by hamnet train: every key as it was used\n" + yaml.safe_dump(tree, sort_keys=False)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
