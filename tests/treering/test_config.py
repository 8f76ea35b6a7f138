from dataclasses import fields
from pathlib import Path

import pytest

from remote.limits import Limits
from treering.config import FEATURES, Config, load_config, show_config
from tsdb.model.errors import BadData


def test_flags_win_over_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "treering.yaml"
    file.write_text("data: /from/file\nlisten: 127.0.0.1:1\nwal-sync: os\nlimits: {ingestion_rate: 5}\n")
    environment = {"TREERING_LISTEN": "127.0.0.1:2", "TREERING_INGESTERS": "3", "OTHER": "x"}
    config = load_config(str(file), {"listen": "127.0.0.1:3"}, environment)
    assert (config.data, config.listen, config.ingesters, config.wal_sync) == ("/from/file", "127.0.0.1:3", 3, "os")
    assert config.limits == {"ingestion_rate": 5}


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    config = load_config(None, {"multitenancy": True, "enable_feature": ("all",)}, {})
    file = tmp_path / "shown.yaml"
    file.write_text(show_config(config))
    assert load_config(str(file), {}, {}) == config
    assert config.features() == frozenset(FEATURES)


@pytest.mark.parametrize(
    ("flags", "environment", "text", "message"),
    [
        ({}, {}, "listne: x", "unknown key 'listne'; did you mean 'listen'?"),
        ({}, {"TREERING_DATTA": "x"}, "", "environment variable TREERING_DATTA: unknown key 'datta'; did you mean 'data'?"),
        ({}, {}, "ingesters: many", "ingesters"),
        ({}, {}, "- a list", "want `key: value` lines"),
        ({}, {}, "a: [", "configuration file"),
        ({"target": ("ingestor",)}, {}, "", "unknown role 'ingestor'"),
        ({"enable_feature": ("promql-duration",)}, {}, "", "did you mean 'promql-duration-expr'"),
        ({"listen": "nonsense"}, {}, "", "no HOST:PORT"),
        ({"replication_factor": 3}, {}, "", "replication_factor: 3 needs as many ingesters; there are 1"),
        ({"max_samples": -1}, {}, "", "max_samples: -1 is negative"),
        ({}, {}, "cache-path: /etc/hostname", "cache_path: /etc/hostname is no folder"),
        ({"cache_path": "/tmp/x", "cache_disk_bytes": 1000}, {}, "", "cache_disk_bytes: 1000 is below 67108864"),
        ({}, {"TREERING_MEMCACHED": "a:11211,b"}, "", "memcached: 'b' is no HOST:PORT"),
        ({}, {}, "memcached: ['a:0']", "memcached: 'a:0' is no HOST:PORT"),
        ({}, {}, "cache-disk-byte: 5", "did you mean 'cache_disk_bytes'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, flags: dict[str, object], environment: dict[str, str], text: str, message: str) -> None:
    file = tmp_path / "treering.yaml"
    file.write_text(text)
    with pytest.raises(BadData) as caught:
        load_config(str(file), flags, environment)
    assert message in str(caught.value)


def test_memcached_without_its_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadData, match=r"pip install 'treering\[memcached\]'"):
        load_config(None, {"memcached": ("localhost:11211",)}, {})


def test_a_missing_file_is_named() -> None:
    with pytest.raises(BadData, match=r"/nowhere\.yaml: No such file"):
        load_config("/nowhere.yaml", {}, {})


def test_defaults_are_loopback_and_durable() -> None:
    assert Config().address() == ("127.0.0.1", 9009)
    assert Config().wal_sync == "commit"


def test_every_key_and_limit_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    names = (*Config.__struct_fields__, *(field.name for field in fields(Limits)))
    assert [name for name in names if f"`{name}`" not in text] == []
