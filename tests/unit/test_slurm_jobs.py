"""What Slurm's programs say, read: states, reasons, refusals, comments, accounting, and the scripts it is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.slurm_commands import SlurmAway, SlurmRefusal, refusal
from dtf.adapters.slurm_jobs import LONGEST_COMMENT, Job, comment_of, read_accounting, read_queue
from dtf.adapters.slurm_script import (
    PreparedLaunch,
    fits_an_array,
    job_options,
    job_script,
    job_variables,
    resource_options,
)
from dtf.ports.capacity import LaunchRequest, ProviderError, QuotaExceeded
from dtf.settings.providers import SlurmSettings

OWNER = Owner("prod", "team/a:b", "local")


def line(
    job_id: str, state: str, *, comment: str, code: str = "0", ends: str = "N/A", why: str = "None"
) -> str:
    """As squeue writes it."""
    return f"{job_id}|{state}|{code}|{ends}|N/A|n1|{why}|{comment}|"


def ended(state: str, code: str = "0", why: str = "None") -> Job:
    """A job that ended so."""
    [job] = read_queue(line("7", state, comment=comment_of(OWNER, 5, ["local-1"]), code=code, why=why), OWNER)
    assert job.has_ended
    return job


@pytest.mark.parametrize(
    ("state", "code", "reason"),
    [
        ("COMPLETED", "0", "exited with code 0"),
        ("FAILED", "768", "exited with code 3 (last words)"),
        ("FAILED", "9", "was killed by signal 9"),
        ("FAILED", str(137 << 8), "was killed by signal 9"),
        ("OUT_OF_MEMORY", "9", "was killed for using more memory than it asked for (OUT_OF_MEMORY)"),
        ("TIMEOUT", "15", "was ended at its time limit (TIMEOUT)"),
        ("PREEMPTED", "15", "was preempted for a job that goes before it (PREEMPTED)"),
        ("NODE_FAIL", "0", "was lost with its node n1 (NODE_FAIL)"),
        ("DEADLINE", "0", "was ended at its deadline (DEADLINE)"),
        ("CANCELLED", "0", "was cancelled by another than this resource manager (CANCELLED)"),
        ("A_STATE_OF_LATER", "0", "was ended by Slurm (A_STATE_OF_LATER)"),
    ],
)
def test_how_a_job_ended_is_told_by_its_state(state: str, code: str, reason: str) -> None:
    job = ended(state, code)
    assert job.ending("last words") == reason
    assert job.is_clean is (state == "COMPLETED")


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED"]
)
def test_a_job_whose_processes_may_run_has_not_ended(state: str) -> None:
    [job] = read_queue(line("7", state, comment=comment_of(OWNER, 5, ["local-1"])), OWNER)
    assert not job.has_ended


@pytest.mark.parametrize(
    ("why", "is_at_limit"),
    [
        ("QOSMaxJobsPerUserLimit", True),
        ("AssocGrpCpuLimit", True),
        ("PartitionTimeLimit", True),
        ("Resources", False),
        ("Priority", False),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", False),
    ],
)
def test_waiting_for_a_limit_is_told_from_waiting_for_a_turn(why: str, is_at_limit: bool) -> None:
    [job] = read_queue(line("7", "PENDING", comment=comment_of(OWNER, 5, ["local-1"]), why=why), OWNER)
    assert (job.why, job.is_at_limit) == (why, is_at_limit)


def test_only_an_owners_own_jobs_are_read_and_tasks_of_an_array_are_told_apart() -> None:
    comment = comment_of(OWNER, 5, ["local-1", "local-2"])
    others = [
        comment_of(Owner(*names), 5, ["local-1"])
        for names in (
            ("prod", "team/a", "b:local"),
            ("prod", "team/a:b", "local2"),
            ("test", "team/a:b", "local"),
        )
    ]
    text = "\n".join(
        [
            line("8_0", "RUNNING", comment=comment),
            line("8_1", "PENDING", comment=comment),
            line("8_2", "RUNNING", comment=comment),  # of which the comment says nothing
            *(line(str(9 + index), "RUNNING", comment=other) for index, other in enumerate(others)),
            line("20", "RUNNING", comment="somebody | else's"),
            "squeue: a word of warning",
        ]
    )
    jobs = [(job.job_id, job.launch_id, job.launched_at_ns, job.state) for job in read_queue(text, OWNER)]
    assert jobs == [("8_0", "local-1", 5, "RUNNING"), ("8_1", "local-2", 5, "PENDING")]


def test_the_end_of_a_time_limit_is_announced_in_time() -> None:
    [job] = read_queue(
        line("7", "RUNNING", comment=comment_of(OWNER, 5, ["local-1"]), ends="1000000000"), OWNER
    )
    assert job.interruption(999_999_000 * 10**9, 240) == ""
    assert (
        job.interruption(999_999_800 * 10**9, 240) == "Slurm ends it at its time limit, 2001-09-09T01:46:40Z"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("COMPLETED|0:0|n1\n", "exited with code 0"),
        ("FAILED|3:0|n1\n", "exited with code 3"),
        ("FAILED|0:9|n1\n", "was killed by signal 9"),
        ("CANCELLED by 1000|0:15|n1\n", "was cancelled by another than this resource manager (CANCELLED)"),
        ("OUT_OF_MEMORY|0:125|n1\n", "was killed for using more memory than it asked for (OUT_OF_MEMORY)"),
        ("NODE_FAIL|0:0|n2\n", "was lost with its node n2 (NODE_FAIL)"),
    ],
)
def test_what_slurmctld_forgot_is_read_from_the_accounting(text: str, reason: str) -> None:
    found = read_accounting(text, Job("7", "local-1", 5))
    assert found is not None
    assert found.ending() == reason


@pytest.mark.parametrize("text", ["", "RUNNING|0:0|n1\n", "\n"])
def test_an_accounting_that_does_not_know_of_an_end_says_none(text: str) -> None:
    assert read_accounting(text, Job("7", "local-1", 5)) is None


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
            "accounting/QOS policy (job submit limit, user's size and/or time limits)",
            QuotaExceeded,
        ),
        ("sbatch: error: AssocGrpSubmitJobsLimit", QuotaExceeded),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", QuotaExceeded),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", SlurmAway),
        ("squeue: error: Unable to contact slurm controller (connect failure)", SlurmAway),
        ("sbatch: error: invalid partition specified: x", SlurmRefusal),
        ("", SlurmRefusal),
    ],
)
def test_what_a_refusal_means_is_told_by_its_words(said: str, kind: type[ProviderError]) -> None:
    fault = refusal("sbatch", said)
    assert type(fault) is kind
    assert "sbatch: error" not in str(fault)


def test_a_job_asks_for_what_the_pool_needs() -> None:
    settings = SlurmSettings(
        partition="main",
        spot_partition="scavenge",
        account="ci",
        qos="short",
        constraint="a100&nvme",
        time_limit="2:00:00",
        gpu_gres="gpu:a100",
        options={"reservation": "night", "exclusive": ""},
    )
    request = LaunchRequest("local-1", "local", cpus=2.5, memory_bytes=3 * 2**30 + 1, gpus=2, is_spot=True)
    assert resource_options(settings, request) == [
        "--partition=scavenge",
        "--account=ci",
        "--qos=short",
        "--constraint=a100&nvme",
        "--time=2:00:00",
        "--mem=3073M",
        "--gres=gpu:a100:2",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=3",
        "--reservation=night",
        "--exclusive",
    ]
    plain = resource_options(SlurmSettings(), LaunchRequest("local-1", "local", slots=4))
    assert plain == ["--nodes=1", "--ntasks=1", "--cpus-per-task=4"]


def test_secrets_go_by_the_names_of_variables_alone() -> None:
    launches = [
        PreparedLaunch(
            LaunchRequest(f"local-{n}", "local"), ["true"], "/dev/null", {"DTF_JOIN_TOKEN": f"secret-{n}"}
        )
        for n in (1, 2)
    ]
    settings = SlurmSettings()
    options = job_options(settings, OWNER, launches, 5)
    assert not any("secret" in text for text in (*options, job_script(settings, launches)))
    assert "--export=ALL,DTF_LAUNCH_0_DTF_JOIN_TOKEN,DTF_LAUNCH_1_DTF_JOIN_TOKEN" in options
    assert "--array=0-1" in options
    assert "--no-requeue" in options
    assert "--signal=B:TERM@120" in options
    narrow = job_options(SlurmSettings(export="NONE"), OWNER, launches[:1], 5)
    assert "--export=DTF_LAUNCH_0_DTF_JOIN_TOKEN" in narrow
    assert "--job-name=local-1" in narrow


@pytest.mark.parametrize("task", [0, 1])
def test_a_task_of_an_array_runs_its_own_command_with_its_own_variables(task: int, tmp_path: Path) -> None:
    program = "import os, sys; print(sys.argv[1:], {k: v for k, v in os.environ.items() if k[:4] == 'DTF_'})"
    launches = [
        PreparedLaunch(
            LaunchRequest(f"local-{n}", "local"),
            [sys.executable, "-c", program, f"it's {n}", "$HOME *"],
            str(tmp_path / f"log {n}"),
            {"DTF_JOIN_TOKEN": f"a 'secret' \"{n}\""},
        )
        for n in range(2)
    ]
    settings = SlurmSettings(setup="DTF_SET=up; export DTF_SET\nset -- lost")
    variables = {**job_variables(settings, launches), "SLURM_ARRAY_TASK_ID": str(task)}
    script = job_script(settings, launches)
    done = subprocess.run(
        ["sh", "-s"],
        input=script,
        text=True,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == done.stderr == ""
    told = {
        "DTF_SET": "up",
        "DTF_WORKER_LAUNCH_ID": f"local-{task}",
        "DTF_JOIN_TOKEN": f"a 'secret' \"{task}\"",
    }
    words, _, rest = (tmp_path / f"log {task}").read_text().strip().partition("] ")
    assert words == f"[\"it's {task}\", '$HOME *'"
    assert eval(rest) == told  # what Python wrote of a dict of texts
    assert (tmp_path / f"log {task}").stat().st_mode & 0o777 == 0o600


def test_an_array_holds_no_more_launches_than_a_comment_can_name() -> None:
    launch_ids = [f"local-{number}" for number in range(200)]
    largest = max(n for n in range(1, 200) if fits_an_array(OWNER, 10**18, launch_ids[:n]))
    assert 50 < largest < 200
    assert len(comment_of(OWNER, 10**18, launch_ids[:largest])) <= LONGEST_COMMENT
