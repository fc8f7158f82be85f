"""What Google Cloud refuses, in words for people, and which calls are made again."""

import contextlib
from collections.abc import Iterator
from typing import Any

from dtf.adapters.cloud_launch import NoRoomThere
from dtf.adapters.cloud_machines import CALL_SECONDS
from dtf.ports.capacity import ProviderError, QuotaExceeded

MISSING = "Google Cloud needs google-cloud-compute: pip install 'dtf[gcp]'"
ZONE_CODES = frozenset(
    {
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "STOCKOUT",
    }
)
"""This zone has no room."""
_QUOTAS = frozenset({"QUOTA_EXCEEDED", "quotaExceeded", "LIMIT_EXCEEDED", "IP_SPACE_EXHAUSTED"})
_RATE = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_ZONE_ADVICE = "name more zones, or another machine type (gcp.zone, gcp.machine_type)"
_QUOTA_ADVICE = "have the quota of the region raised (IAM & Admin, Quotas), or lower pool.max_workers"


def operation_fault(what: str, error: Any) -> Exception:
    """What a failed operation is raised as."""
    said = f"cannot {what}: Google Cloud says {error.code}: {error.message}"
    if error.code in ZONE_CODES:
        return NoRoomThere(f"{said}; {_ZONE_ADVICE}")
    if error.code in _QUOTAS:
        return QuotaExceeded(f"{said}; {_QUOTA_ADVICE}")
    return ProviderError(said)


def repeated() -> dict[str, Any]:
    """Options of a call that is made again, with growing pauses, where Google has no time for it."""
    from google.api_core.retry import Retry

    return {
        "retry": Retry(predicate=_is_passing, initial=0.5, maximum=20.0, timeout=CALL_SECONDS),
        "timeout": CALL_SECONDS,
    }


@contextlib.contextmanager
def unless_absent() -> Iterator[None]:
    """An instance that Google no longer knows is gone."""
    from google.api_core.exceptions import NotFound

    with contextlib.suppress(NotFound):
        yield


@contextlib.contextmanager
def faults_named(what: str) -> Iterator[None]:
    """Raises ProviderError for what Google refuses, QuotaExceeded for want of room."""
    try:
        import requests.exceptions
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    except ImportError as error:
        raise ProviderError(MISSING) from error
    try:
        yield
    except GoogleAPICallError as error:
        if _reasons(error) & _QUOTAS:
            raise QuotaExceeded(
                f"cannot {what}: Google Cloud says {error.message}; {_QUOTA_ADVICE}"
            ) from error
        advice = "; give the credentials the rights that docs/gcp.md lists" if error.code == 403 else ""
        raise ProviderError(
            f"cannot {what}: Google Cloud says {error.code} {error.message}{advice}"
        ) from error
    except DefaultCredentialsError as error:
        raise ProviderError(
            f"cannot {what}: no credentials of Google Cloud are found; run `gcloud auth application-default "
            "login`, set GOOGLE_APPLICATION_CREDENTIALS, or give this machine a service account"
        ) from error
    except (RetryError, GoogleAuthError, requests.exceptions.RequestException) as error:
        raise ProviderError(f"cannot {what}: {error}") from error


def _is_passing(error: BaseException) -> bool:
    """Whether the same call may do better in a moment. Each is safe to make again: it bears an id or a name."""
    import requests.exceptions
    from google.api_core import exceptions

    if isinstance(error, exceptions.Forbidden):
        return bool(_reasons(error) & _RATE)
    return isinstance(
        error,
        (
            exceptions.TooManyRequests,
            exceptions.InternalServerError,
            exceptions.BadGateway,
            exceptions.ServiceUnavailable,
            exceptions.GatewayTimeout,
            requests.exceptions.ConnectionError,
        ),
    )


def _reasons(error: Any) -> set[str]:
    return {str(each.get("reason", "")) for each in error.errors or () if isinstance(each, dict)}
