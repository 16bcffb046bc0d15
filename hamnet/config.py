"""Configuration: one frozen, typed model per section; a mistake names the nearest key or the path that is missing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hamnet.errors import ConfigError

FRACTION_SLACK = 1e-9
"""Fractions written in decimal add up to 1 only to this."""
BENCHMARK_SPLITS = (
    "qh9-stable-iid",
    "qh9-stable-ood",
    "qh9-dynamic-geo",
    "qh9-dynamic-mol",
    "md17-water",
    "md17-ethanol",
    "md17-malondialdehyde",
    "md17-uracil",
    "nabladft",
)
"""Names that stand for a split file: splits of the molecular benchmarks, by their published generators."""
STORE_SUFFIXES = (".h5", ".hdf5")
"""Files that are taken for a store where a configuration is expected."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, Path)) else value


class _Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )


class DataConfig(_Section):
    """Where the calculations are and how they are split."""

    store: Annotated[tuple[Path, ...], BeforeValidator(_as_list), Field(min_length=1)]
    """Store written by `hamnet preprocess`, or a list of stores with the same spin layout."""
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Part of the calculations to learn from."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the calculations that choose the best checkpoint; 0: the training loss chooses."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the calculations for the final figures only."""
    split: Path | None = None
    """JSON file with lists of names under train, validation, test, or the name of a benchmark's split (qh9-stable-iid,
    qh9-stable-ood, qh9-dynamic-geo, qh9-dynamic-mol, md17-water and so on, nabladft); instead of the fractions."""
    seed: int = 0
    """Seed of the random split."""
    spin_orbit: bool | None = None
    """Whether spinor data have spin-orbit coupling; without it moments turn apart from the lattice, and the network is
    built so. null: without, where no calculation shows any; false: refuse data that do; true: with it."""

    @model_validator(mode="after")
    def _check_fractions(self) -> DataConfig:
        total = self.train_fraction + self.validation_fraction + self.test_fraction
        if total > 1 + FRACTION_SLACK:
            raise ValueError(f"train, validation and test fractions add up to {total:g}, expected at most 1")
        return self


class NetworkConfig(_Section):
    """Size of the network."""

    preset: Literal["light", "medium", "large"] | None = None
    """`hamnet train` chooses the keys that are not given, by basis and data, to be of this size; null: the defaults.
    Without any network section it chooses the size too."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Number of message-passing layers."""
    channels: Annotated[int, Field(ge=1)] = 32
    """Feature channels of each irrep."""
    lmax: Annotated[int, Field(ge=0)] | None = None
    """Largest angular momentum of the node features; null: 4."""
    message_cutoff: Annotated[float, Field(gt=0)] | None = None
    """Reach of the messages in Angstrom; null: the reach of the pairs."""
    body_order: Annotated[int, Field(ge=2, le=4)] = 3
    """Bodies that one layer correlates, centre included: 2 sees distances, 3 angles, 4 handedness."""
    kernel: Literal["so2", "tensor_product"] = "so2"
    """Convolution kernel; tensor_product is e3nn's, many times slower, for comparison."""
    radial_functions: Annotated[int, Field(ge=2)] = 16
    """Radial basis functions of the distance."""
    radial_hidden: Annotated[int, Field(ge=1)] = 64
    """Width of the radial network."""
    baseline: Literal["none", "two_centre", "reference"] = "two_centre"
    """What is taken from H before the network learns the rest: nothing; smooth functions of distance fitted to the
    training part; or the H0 (`reference_hamiltonian`) of the stores, as `hamnet label --reference` writes it."""


class TrainingConfig(_Section):
    """How to train."""

    output: Path = Path("run")
    """Folder for checkpoints, logs and figures."""
    epochs: Annotated[int, Field(ge=1)] = 1000
    """Largest number of passes over the training part."""
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Budget of the fit in minutes; null: no limit. With one, the learning rate follows the clock."""
    clock: Literal["wall", "process"] = "wall"
    """What max_minutes counts: time on the wall, or processor time of the process, comparable on a shared machine."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Structures per step; null: 1, unless `batch_pairs` is given."""
    batch_pairs: Annotated[int, Field(ge=1)] | None = None
    """About so many pairs per step, at least one structure: for structures of different sizes."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Largest learning rate of AdamW."""
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """cosine: warm-up, then half a cosine over the budget; plateau: halve when validation stalls; constant."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Part of the budget over which the learning rate rises from zero."""
    final_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Last learning rate of the cosine, as a part of the largest."""
    plateau_patience: Annotated[int, Field(ge=1)] = 20
    """Validations without progress before schedule plateau halves the learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay per step of the running average of the weights that is validated and saved; 0: no averaging."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null: no clipping."""
    early_stop_patience: Annotated[int, Field(ge=1)] | None = None
    """Validations without progress before training stops; null: never."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between validations."""
    energy_zero: Literal["auto", "keep", "remove"] = "auto"
    """auto: the loss removes one mu S per structure that is periodic in all directions; keep: never; remove: always."""
    kspace_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the k-space loss: the error of H among the DFT's own states near the Fermi level; 0: without it."""
    kspace_points: Annotated[int, Field(ge=1)] = 2
    """Random k-points of each structure in the k-space loss."""
    energy_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the energy per electron that the density of the predicted H costs in the field of the target; for
    closed-shell molecules; 0: without it."""
    commutator_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the commutator of the target with the density of the predicted H; for closed-shell molecules; 0:
    without it."""
    validate_bands: Annotated[int, Field(ge=0)] = 2
    """Structures of the validation part whose bands near the Fermi level are compared at each validation; 0: none."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Kind of device."""
    devices: Annotated[int, Field(ge=1)] = 1
    """Processes (each with a GPU of its own on cuda) that share every batch: the result is that of one, to rounding."""
    precision: Literal["float32", "float64", "bf16"] = "float32"
    """Of the network; bf16: float32 weights, products in bfloat16, GPUs only. Loss and sums are float64 in any case."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of each process; null: OMP_NUM_THREADS when set, else all cores, shared among `devices`."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and collate batches for each device; 0: the training process itself."""
    seed: int = 0
    """Seed of weights and of the order of batches."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between rows of the log."""
    progress: bool = True
    """Show progress: a bar in a terminal, a line a minute in a log."""

    @model_validator(mode="after")
    def _check_keys(self) -> TrainingConfig:
        if self.batch_size is not None and self.batch_pairs is not None:
            raise ValueError("batch_size and batch_pairs are both given: leave one of them out")
        if self.precision == "bf16" and self.device == "cpu":
            raise ValueError("precision bf16 is for GPUs: take float32 on the cpu, or device cuda")
        return self


class Config(_Section):
    """Everything that `hamnet train` needs."""

    data: DataConfig
    """Data and split."""
    network: NetworkConfig = NetworkConfig()
    """Network."""
    training: TrainingConfig = TrainingConfig()
    """Training."""


def load_config(path: Path | str, overrides: list[str] | None = None) -> Config:
    """Configuration from a YAML file, or from a store alone, and `section.key=value` overrides.

    A store (.h5) stands for a file with `data: {store: PATH}` and nothing else.
    Relative paths in the file stand relative to the folder where the command runs.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown (the nearest key is named), a value has a
            wrong type, or a file named in it does not exist.
    """
    path = Path(path)
    tree = {"data": {"store": str(path)}} if path.suffix in STORE_SUFFIXES else _parse_yaml(_read(path), str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}, expected sections {sorted(Config.model_fields)}")
    for override in overrides or []:
        _apply_override(tree, override)
    config = config_from_dict(tree, source=str(path))
    _check_files(config, str(path))
    return config


def overridden(tree: dict[str, Any], overrides: list[str], source: str) -> Config:
    """Configuration from nested dictionaries, which are changed in place, and `section.key=value` overrides.

    Args:
        tree: sections.
        overrides: as `load_config` takes them.
        source: what to call it in messages.

    Raises:
        ConfigError: as `load_config`; files are looked for only where an override names them.
    """
    for override in overrides:
        _apply_override(tree, override)
    config = config_from_dict(tree, source)
    if any(override.startswith("data.") for override in overrides):
        _check_files(config, source)
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"cannot read the configuration {path}: {reason}; give the path of a YAML file") from error


def config_from_dict(tree: Mapping[str, Any], source: str = "configuration") -> Config:
    """Configuration from nested dictionaries (no look at files).

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(entry) for entry in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) != 2 or not all(keys):
        raise ConfigError(f"override {override!r} is not section.key=value, as training.epochs=100")
    section = tree.get(keys[0])
    if section is None:
        section = tree[keys[0]] = {}
    if not isinstance(section, dict):
        raise ConfigError(f"override {override!r}: {keys[0]} holds {section!r}, expected a section of keys")
    section[keys[1]] = _parse_yaml(value, f"override {override!r}")


def _explain(entry: Any) -> str:
    location = [str(part) for part in entry["loc"]]
    key = ".".join(location) or "the whole"
    if entry["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(location)}"
    if entry["type"] == "missing":
        return f"the key {key!r} is missing"
    message = entry["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (found {_short(entry['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest(location: list[str]) -> str:
    sections: dict[str, list[str]] = {"": list(Config.model_fields)}
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections[name] = list(field.annotation.model_fields)
    here = sections.get(location[0] if len(location) > 1 else "", [])
    close = difflib.get_close_matches(location[-1], here, n=1, cutoff=0.5)
    if close:
        return f", did you mean {'.'.join([*location[:-1], close[0]])!r}?"
    everywhere = [f"{section}.{key}" for section, keys in sections.items() if section for key in keys]
    elsewhere = [name for name in everywhere if name.split(".")[1] == location[-1]]
    if elsewhere:
        return f", did you mean {elsewhere[0]!r}?"
    return f"; known here are {sorted(here)}"


def _check_files(config: Config, source: str) -> None:
    named = [("data.store", path) for path in config.data.store]
    if config.data.split is not None and str(config.data.split) not in BENCHMARK_SPLITS:
        named.append(("data.split", config.data.split))
    for key, path in named:
        if not path.exists():
            hint = (
                "write a store with `hamnet preprocess`" if key == "data.store" else "leave the key out for fractions"
            )
            raise ConfigError(f"{source}: {key} names {path}, which does not exist; correct the path or {hint}")
