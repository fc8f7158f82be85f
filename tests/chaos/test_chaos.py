"""A short seeded run of faults: each kind at least once; and that the harness sees what it looks for.

DTF_CHAOS_SEED draws another schedule than the one that is always run.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.campaign import Campaign, available
from tests.chaos.faults import HARM, KIND_NAMES
from tests.chaos.table import Struck

SEED = os.environ.get("DTF_CHAOS_SEED", "1")
STACKS = 2

pytestmark = [pytest.mark.coordinator, pytest.mark.worker, pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def campaign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Campaign]:
    """Each kind that this machine can do, once."""
    kinds, _ = available([])
    campaign = Campaign(SEED, len(kinds), STACKS, kinds, tmp_path_factory.mktemp("chaos") / "stacks")
    await campaign.run()
    yield campaign


def _said(campaign: Campaign) -> str:
    found = [f"{each['kind']}: {each['what']}" for failure in campaign.failures for each in failure["found"]]
    return "\n".join([*found, *campaign.broken, f"kept in {campaign.directory}"])


@pytest.mark.parametrize("kind", KIND_NAMES)
async def test_nothing_is_lost_or_comes_twice(kind: str, campaign: Campaign) -> None:
    if why := dict(available([])[1]).get(kind):
        pytest.skip(f"left out: {kind}: {why}")
    struck: list[Struck] = [each for each in campaign.tally.struck if each.kind == kind]
    assert struck, f"{kind} was never injected\n{_said(campaign)}"
    assert all(each.in_flight for each in struck), f"nothing was in flight: {struck}"
    assert all(each.recovery_seconds >= 0 for each in struck), (
        f"not recovered from: {struck}\n{_said(campaign)}"
    )
    assert not campaign.tally.found[kind], _said(campaign)


async def test_everything_was_checked(campaign: Campaign) -> None:
    assert campaign.is_clean, _said(campaign)
    assert len(campaign.rounds) == STACKS
    assert all(each["verdicts"] and each["commits"] for each in campaign.rounds)


async def test_a_loss_would_be_seen(tmp_path: Path) -> None:
    campaign = Campaign(SEED, 1, 1, [HARM.name], tmp_path / "stacks")
    await campaign.run()
    assert not campaign.broken, _said(campaign)
    assert campaign.tally.found[HARM.name]["submissions lost"], _said(campaign)
    assert not campaign.is_clean
