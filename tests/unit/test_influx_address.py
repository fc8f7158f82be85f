"""Where InfluxDB is, as the environment says it: what is wrong is told without telling secrets."""

import pytest

from dtf.adapters.influx_connection import InfluxAddress
from dtf.ports.metric_store import StoreMismatch

RIGHT = {
    "INFLUXDB_V2_URL": "http://127.0.0.1:8086",
    "INFLUXDB_V2_TOKEN": "t0p-s3cret==\n",
    "INFLUXDB_V2_ORG": "qa",
}


def test_an_address_is_read_and_a_line_end_behind_the_token_is_none_of_it() -> None:
    address = InfluxAddress.from_environment(RIGHT)
    assert (address.url, address.token, address.bucket) == ("http://127.0.0.1:8086", "t0p-s3cret==", "dtf")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("INFLUXDB_V2_URL", "127.0.0.1", "INFLUXDB_V2_URL is no address"),
        ("INFLUXDB_V2_URL", "file:///etc/passwd", "INFLUXDB_V2_URL is no address"),
        ("INFLUXDB_V2_URL", "http://me:s3cret@127.0.0.1:8086", "a user or a password"),
        ("INFLUXDB_V2_TOKEN", "t0p-s3cret\nX-Header: y", "INFLUXDB_V2_TOKEN holds"),
        ("INFLUXDB_V2_TOKEN", "t0p-s3cret\u00e9", "INFLUXDB_V2_TOKEN holds"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(name: str, value: str, message: str) -> None:
    with pytest.raises(StoreMismatch, match=message) as refused:
        InfluxAddress.from_environment({**RIGHT, name: value})
    assert "s3cret" not in str(refused.value)
