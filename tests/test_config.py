"""Configuration: mistakes are told with the key, the value and the nearest right name."""

from pathlib import Path

import pytest

from hamnet.config import config_from_dict, load_config
from hamnet.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_loads_and_is_short(path: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.h5"
    data.touch()
    assert load_config(path, [f"data.store={data}"]).network.channels > 0
    assert len(path.read_text().splitlines()) <= 40


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"network\.chanels.*channels"):
        config_from_dict({"data": {"store": "x.h5"}, "network": {"chanels": 3}})


def test_wrong_type_says_what_was_found() -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs.*many"):
        config_from_dict({"data": {"store": "x.h5"}, "training": {"epochs": "many"}})


def test_missing_store_names_the_file(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data:\n  store: nowhere.h5\n")
    with pytest.raises(ConfigError, match=r"nowhere\.h5"):
        load_config(config)


def test_missing_configuration_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("data: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(broken)


def test_overrides_win_and_are_checked(tmp_path: Path) -> None:
    data = tmp_path / "data.h5"
    data.touch()
    config = tmp_path / "c.yaml"
    config.write_text(f"data:\n  store: {data}\ntraining:\n  epochs: 3\n")
    assert load_config(config, ["training.epochs=7"]).training.epochs == 7
    with pytest.raises(ConfigError, match="section.key=value"):
        load_config(config, ["epochs"])


def test_fractions_above_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="add up to"):
        config_from_dict({"data": {"store": "x.h5", "train_fraction": 0.9, "validation_fraction": 0.3}})
