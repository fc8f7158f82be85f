"""What Azure refuses, in words for people."""

import contextlib
from collections.abc import Iterator
from typing import Any

from dtf.adapters.cloud_launch import NoRoomThere
from dtf.ports.capacity import ProviderError, QuotaExceeded

MISSING = "Azure needs azure-identity and azure-mgmt-compute: pip install 'dtf[azure]'"
ROOM_CODES = frozenset(
    {
        "AllocationFailed",
        "ZonalAllocationFailed",
        "OverconstrainedAllocationRequest",
        "OverconstrainedZonalAllocationRequest",
        "SkuNotAvailable",
    }
)
"""There is no room for this size in this zone; another may have some."""
_QUOTAS = frozenset({"QuotaExceeded", "SubnetIsFull", "PublicIPCountLimitReached"})
_QUOTA_WORDS = "quota"
"""A quota of cores is refused as an operation that is not allowed, and named in the message only."""
_ROOM_ADVICE = "name more sizes or zones (azure.vm_size, azure.zone)"
_QUOTA_ADVICE = "have the quota of the region raised (Usage + quotas), or lower pool.max_workers"


def fault_of(what: str, error: Any) -> Exception:
    """What a refusal of Azure's (HttpResponseError) is raised as."""
    codes = _codes(error)
    code = next(iter(codes), str(error.status_code or "nothing"))
    said = f"cannot {what}: Azure says {code}: {_message(error)}"
    if codes.keys() & ROOM_CODES:
        return NoRoomThere(f"{said}; {_ROOM_ADVICE}")
    if codes.keys() & _QUOTAS or ("OperationNotAllowed" in codes and _QUOTA_WORDS in _message(error).lower()):
        return QuotaExceeded(f"{said}; {_QUOTA_ADVICE}")
    if error.status_code == 403:
        return ProviderError(f"{said}; give the credentials the rights that docs/azure.md lists")
    return ProviderError(said)


@contextlib.contextmanager
def faults_named(what: str) -> Iterator[None]:
    """Raises ProviderError for what Azure refuses, QuotaExceeded for a quota, NoRoomThere for want of room."""
    try:
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
    except ImportError as error:
        raise ProviderError(MISSING) from error
    try:
        yield
    except ClientAuthenticationError as error:
        raise ProviderError(
            f"cannot {what}: Azure takes no credentials of ours ({_first_line(error)}); run `az login`, set "
            "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or give this machine an identity"
        ) from error
    except HttpResponseError as error:
        raise fault_of(what, error) from error
    except AzureError as error:
        raise ProviderError(f"cannot {what}: {_first_line(error)}") from error


@contextlib.contextmanager
def unless_absent() -> Iterator[None]:
    """A machine that Azure no longer knows is gone."""
    from azure.core.exceptions import ResourceNotFoundError

    with contextlib.suppress(ResourceNotFoundError):
        yield


def _codes(error: Any) -> dict[str, None]:
    """The code of a refusal and those of its details, in their order, as keys."""
    if error.error is None:
        return {}
    return {each.code: None for each in (error.error, *(error.error.details or ())) if each.code}


def _message(error: Any) -> str:
    return str(error.error.message if error.error is not None else _first_line(error))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
