"""`dtf replay`: prove a log. Its chain, the hash of its state, every decision made again."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import click

from dtf.cli.capsule import expected_of, manifest_of
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_fold import earliest_fold, fold_to, nearest_fold, progress
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.cli.story_subject import find_span
from dtf.core.run.proof import Checkpoint, Proof, ProofFailed, hashes_header, parse_hashes
from dtf.core.run.state_hash import SCHEMA_VERSION
from dtf.settings.code_version import code_version


@click.command()
@click.argument("what", required=False, metavar="[FILE|RUN]")
@source_options
@click.option("--to-seq", "until", type=click.IntRange(min=1), metavar="N", help="Stop after this sequence.")
@click.option(
    "--hashes",
    "hashes_file",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write the state's hash at every sequence (see --every) to this file.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Hash at each sequence that N divides. Default with --hashes: 1.",
)
@click.option(
    "--expect",
    "expected_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Compare with the hashes that another machine wrote with --hashes.",
)
@click.option(
    "--derive-all", is_flag=True, help="Derive the decisions of other versions too: would this one decide so?"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    what: str | None,
    source: Path | None,
    namespace: str | None,
    until: int | None,
    hashes_file: Path | None,
    every: int | None,
    expected_file: Path | None,
    derive_all: bool,
    as_json: bool,
) -> ExitCode:
    """Prove a log: its chain, its state at every sequence, every decision made again.

    Reads the live log, or FILE: an export, a capsule, an archive. With RUN, the log up to that run's
    end. Exits with 1 at the first sequence where something differs, and says what.

    \b
    Example:
        dtf replay                                 the live log
        dtf replay 7f3k                            up to the end of a run
        dtf replay run-7f3k.dtfcapsule             what somebody attached to a report
        dtf replay --hashes here.txt               on one machine …
        dtf replay log.dtfstream --expect here.txt … and on another
    """
    file = Path(what) if what is not None and Path(what).exists() else None
    run_id = what if file is None else None
    if file is not None and source is not None:
        raise CommandError("FILE and --from FILE say the same twice; give one", exit_code=ExitCode.USAGE)
    expected = dict(_read_hashes(expected_file)) if expected_file else {}
    interval = every or (1 if hashes_file else 0)

    async def prove(opened: LogSource) -> dict[str, object]:
        with ExitStack() as stack:
            lines = stack.enter_context(hashes_file.open("w")) if hashes_file else None
            fold = await earliest_fold(opened)
            capsule = manifest_of(opened)
            if capsule is not None and not expected and until is None:
                expected.update(expected_of(capsule))
            wanted = {at: found for at, found in expected.items() if until is None or at <= until}
            proof = Proof(code_version(), interval, wanted, derive_all, fold.chain, fold.state)
            end = until if run_id is None else await _end_of_run(opened, run_id)
            return await _prove(opened, end, proof, lines)

    document = with_log_source(invocation, file or source, namespace, prove)
    if as_json:
        click.echo(json.dumps(document))
    else:
        click.echo("\n".join(_text(document)))
    return ExitCode.FAILED if "failure" in document else ExitCode.OK


async def _end_of_run(source: LogSource, run_id: str) -> int:
    head = await source.head()
    fold = await fold_to(source, await nearest_fold(source, head.last_sequence), head.last_sequence)
    span = find_span(fold.state, run_id)
    if span is None:
        raise CommandError(
            f"{run_id} is no file, and {source.name} knows no run of that name", "`dtf runs` lists the runs"
        )
    return span.last_sequence


async def _prove(
    source: LogSource, until: int | None, proof: Proof, lines: TextIO | None
) -> dict[str, object]:
    head = await source.head()
    end = head.last_sequence if until is None else min(until, head.last_sequence)
    if not head.last_sequence:
        raise CommandError(f"{source.name} is empty: there is nothing to prove")
    begin = proof.chain.sequence
    if begin >= end:
        raise CommandError(
            f"{source.name} can be folded from {begin + 1} on, and was to be proved up to {end}"
        )
    if lines is not None:
        lines.write(hashes_header(source.namespace) + "\n")
    failure: ProofFailed | None = None
    try:
        with progress(end - begin, "replaying") as bar:
            async for batch in source.read(begin, end):
                for message in batch:
                    found = proof.take(message.sequence, message.payload, message.message_id)
                    if found is not None and lines is not None:
                        lines.write(found.as_line() + "\n")
                bar.advance(len(batch))
        proof.finish()
    except ProofFailed as error:
        failure = error
    return _document(source, proof, failure)


def _read_hashes(path: Path) -> Mapping[int, Checkpoint]:
    try:
        with path.open() as lines:
            return parse_hashes(iter(lines))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {error}", exit_code=ExitCode.USAGE) from error


def _document(source: LogSource, proof: Proof, failure: ProofFailed | None) -> dict[str, object]:
    reached = proof.checkpoint()
    strangers = [s for s in proof.chain.stranger_sequences if s >= proof.first_sequence]
    document: dict[str, object] = {
        "source": source.name,
        "namespace": source.namespace,
        "code_version": proof.code_version,
        "schema_version": SCHEMA_VERSION,
        "first_sequence": proof.first_sequence,
        "last_sequence": reached.sequence,
        "last_hash": reached.commit_hash,
        "state_hash": reached.state_hash,
        "epoch": proof.chain.epoch,
        "derived_commits": proof.derived_commits,
        "decisions": proof.input_count,
        "folded_commits": dict(proof.folded_versions),
        "strangers": len(strangers),
        "stale_commits": proof.stale_sequences,
        "hashes_matched": proof.matched,
        "is_proved": failure is None,
    }
    if failure is not None:
        document["failure"] = {"sequence": failure.sequence, "what": failure.what}
    return document


def _text(document: Mapping[str, object]) -> list[str]:
    folded = document["folded_commits"]
    assert isinstance(folded, dict)
    lines = [
        f"{document['source']}: sequences {document['first_sequence']:,} to {document['last_sequence']:,}, "
        f"one chain, {document['epoch']:,} reigns"
    ]
    if document["derived_commits"]:
        lines.append(
            f"  derived  {document['decisions']:,} decisions of {document['derived_commits']:,} commits by this "
            f"code ({document['code_version']})"
        )
    lines.extend(
        f"  folded   {count:,} commits by {version}: their decisions were not derived again, only this "
        "version's own are"
        for version, count in folded.items()
    )
    if document["strangers"]:
        lines.append(f"  passed   {document['strangers']:,} messages that are no commits of the chain")
    if document["hashes_matched"]:
        lines.append(f"  equal    {document['hashes_matched']:,} hashes of the state, as expected")
    lines.append(f"  state    {document['state_hash']} at {document['last_sequence']:,}")
    failure = document.get("failure")
    if isinstance(failure, dict):
        return [*lines, f"NOT PROVED at sequence {failure['sequence']:,}: {failure['what']}"]
    return [*lines, "proved"]
