"""A connection to InfluxDB 2: where it is, its client, and what its refusals mean as errors of the port."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3.exceptions
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException

from dtf.ports.clock import Clock
from dtf.ports.metric_store import StoreError, StoreMismatch, StoreUnavailable

TIMEOUT_SECONDS = 30.0
"""Of one request; a query over a year of a large suite takes a few seconds."""

LONGEST_HINT_SECONDS = 900.0
"""Retry-After that is believed."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class InfluxAddress:
    """Where the bucket is and who writes it."""

    url: str
    token: str = field(repr=False)
    org: str
    bucket: str
    certificate_authority_file: str = ""
    """PEM file that signed the server's certificate; empty: the system's."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "InfluxAddress":
        """From INFLUXDB_V2_URL, _TOKEN, _ORG, _BUCKET (default dtf) and _SSL_CA_CERT. Raises StoreMismatch."""
        names = ("INFLUXDB_V2_URL", "INFLUXDB_V2_TOKEN", "INFLUXDB_V2_ORG")
        missing = [name for name in names if not environment.get(name)]
        if missing:
            raise StoreMismatch(f"the influxdb store needs {' and '.join(missing)} in the environment")
        url, token, org = (environment[name].strip() for name in names)
        _check(url, token)
        bucket = environment.get("INFLUXDB_V2_BUCKET") or "dtf"
        return cls(url, token, org, bucket, environment.get("INFLUXDB_V2_SSL_CA_CERT", ""))


def _check(url: str, token: str) -> None:
    """Raises StoreMismatch, without saying what is secret, where the package would fail and say it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise StoreMismatch("INFLUXDB_V2_URL is no address as http://127.0.0.1:8086")
    if "@" in parts.netloc:
        raise StoreMismatch("INFLUXDB_V2_URL holds a user or a password, which is not used: take it out")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise StoreMismatch(
            "INFLUXDB_V2_TOKEN holds a space, a line break or another character that no token has"
        )


def make_client(address: InfluxAddress) -> Any:
    """A client of the package's, which asks once: whoever calls knows when to ask again."""
    extra = {"ssl_ca_cert": address.certificate_authority_file} if address.certificate_authority_file else {}
    construct: Any = InfluxDBClient  # the package has no types here
    return construct(
        url=address.url,
        token=address.token,
        org=address.org,
        timeout=int(TIMEOUT_SECONDS * 1000),
        enable_gzip=True,
        retries=False,
        **extra,
    )


async def call(work: Callable[[], _T], address: InfluxAddress, clock: Clock) -> _T:
    """What `work`, which blocks, returns. Raises StoreError."""
    try:
        return await asyncio.to_thread(work)
    except ApiException as error:
        raise _refused(error, address, clock) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable(
            f"InfluxDB at {address.url} does not answer: {type(error).__name__}: {error}"
        ) from error


def _refused(error: ApiException, address: InfluxAddress, clock: Clock) -> StoreError:
    where = f"InfluxDB at {address.url}, bucket {address.bucket!r}"
    if error.status in (400, 413):
        return StoreMismatch(f"{where} refuses what dtf writes or asks: {error.message}")
    if error.status in (401, 403, 404):
        return StoreUnavailable(
            f"{where} does not let this token in ({error.status}: {error.message}); "
            "check INFLUXDB_V2_TOKEN, INFLUXDB_V2_ORG and INFLUXDB_V2_BUCKET"
        )
    return StoreUnavailable(
        f"{where} answers {error.status}: {error.message}",
        retry_after_seconds=retry_after(error.retry_after, clock.now_ns()),
    )


def retry_after(text: str | None, now_ns: int) -> float:
    """Seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, 10.2.3); 0: it says nothing.

    At most LONGEST_HINT_SECONDS: a clock that is wrong by years must not keep points out for years.
    """
    try:
        seconds = float(text or 0.0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text or "").timestamp() - now_ns / 1e9
        except (ValueError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_HINT_SECONDS)  # NaN, which is no number, is 0 by this
