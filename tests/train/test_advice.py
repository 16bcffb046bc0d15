"""Sizes of the network that nobody gave: chosen, told with a reason, and what was given stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_cases import small_store

from hamnet.config import Config, config_from_dict, load_config
from hamnet.nn.dataset import StoreCollection
from hamnet.train.advice import LEAST_NUMBERS, PRESETS, advise, write_config


def advised(store: Path, network: dict[str, object] | None = None) -> tuple[Config, list[str]]:
    tree: dict[str, object] = {"data": {"store": str(store)}}
    if network is not None:
        tree["network"] = network
    stores = StoreCollection([store])
    try:
        return advise(config_from_dict(tree), stores, stores.names)
    finally:
        stores.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("advice") / "data.h5", n=3)


def test_little_data_gets_the_light_network_and_says_why(store: Path) -> None:
    config, lines = advised(store)
    assert config.network.channels == PRESETS["light"].channels
    assert config.network.message_cutoff == pytest.approx(3.2)  # twice the larger radius, 1.6 A
    assert "light" in lines[0]
    assert "numbers to learn from" in lines[0]
    assert all(any(key in line for line in lines) for key in ("channels", "lmax", "message_cutoff", "body_order"))


def test_a_preset_is_taken_and_keys_that_are_given_stand(store: Path) -> None:
    config, lines = advised(store, {"preset": "large", "channels": 5})
    assert (config.network.channels, config.network.layers) == (5, PRESETS["large"].layers)
    assert config.network.preset is None
    assert any("channels 5: as given" in line for line in lines)


def test_a_network_section_without_preset_is_left_alone(store: Path) -> None:
    config, lines = advised(store, {"channels": 5})
    assert lines == []
    assert config.network == config_from_dict({"data": {"store": "x"}, "network": {"channels": 5}}).network


def test_presets_grow_and_every_size_finds_one() -> None:
    assert set(PRESETS) == set(LEAST_NUMBERS)
    assert min(LEAST_NUMBERS.values()) == 0
    assert list(LEAST_NUMBERS.values()) == sorted(LEAST_NUMBERS.values(), reverse=True)


def test_a_store_alone_is_a_configuration_and_what_was_used_can_be_used_again(store: Path, tmp_path: Path) -> None:
    config = load_config(store, ["training.epochs=7"])
    assert config.data.store == (store,)
    assert config.training.epochs == 7
    stores = StoreCollection([store])
    settled, _ = advise(config, stores, stores.names)
    stores.close()
    write_config(tmp_path / "config.yaml", settled)
    assert load_config(tmp_path / "config.yaml").network == settled.network
