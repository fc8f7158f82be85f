"""`dtf gate`: exit non-zero on a regression beyond the limits, and say what it would take to pass."""

import json
from dataclasses import dataclass
from datetime import timedelta

import click

from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.revisions import compare_revisions
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.core.trend.finding_text import finding_sentence, relative_text, series_text
from dtf.core.trend.gating import Breach, Coverage, GateRule, GateVerdict, judge
from dtf.core.trend.group_text import group_document
from dtf.report.compare import comparison_document
from dtf.report.output import plain_line
from dtf.report.wording import counted
from dtf.settings.model import Settings
from dtf.settings.trends import GateSettings


@click.command("gate")
@click.option("--suite", default="", help="The suite; the settings' or the project's, unless named.")
@click.option(
    "--base",
    default="",
    metavar="REVISION",
    help="Compare with this revision, as git names it, not with the last 30 days.",
)
@click.option(
    "--head",
    default="",
    metavar="REVISION",
    help="Revision to judge; the newest, unless named. Needs --base.",
)
@click.option(
    "--max-regression",
    type=click.FloatRange(0),
    default=None,
    metavar="SHARE",
    help="Share that a series may have become worse by, as 0.05.",
)
@click.option(
    "--days", type=click.FloatRange(0.01), default=None, help="Without --base: how far back a change counts."
)
@click.option("--provisional", is_flag=True, default=None, help="Fail on what is not confirmed yet, too.")
@click.option(
    "--require-history",
    type=click.FloatRange(0, 1),
    default=None,
    metavar="SHARE",
    help="Exit with 11 unless this share of the series has points enough for a change to be found.",
)
@click.option("--github", is_flag=True, help="Say it as annotations of GitHub Actions.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    suite: str,
    base: str,
    head: str,
    max_regression: float | None,
    days: float | None,
    provisional: bool | None,
    require_history: float | None,
    github: bool,
    as_json: bool,
) -> int:
    """Exit with 10 if something became worse beyond the limits ([gate]), and say what it would take to pass.

    Only confirmed changes count; what was rejected or muted does not. A change that was taken back
    since, or made good by another, passes. Cost that moved between cases of the suite is named and passes.
    Series with too few points for a change to be found in them are counted; --require-history 1 makes
    the exit code 11 where there are any.

    \b
    Example:
        dtf gate
        dtf gate --base main --max-regression 0.1 --github
        dtf gate --require-history 0.9
    """
    if head and not base:
        raise CommandError(
            "--head needs --base", "`dtf gate` alone judges the newest", exit_code=ExitCode.USAGE
        )
    settings = invocation.load(
        gate__max_regression=max_regression,
        gate__window_days=days,
        gate__provisional=provisional,
        gate__require_history=require_history,
    ).settings
    name = suite or settings.run.suite or invocation.project_dir.name
    request = pb.CompareRevisionsRequest(suite=name, base=base, head=head)
    if not base:
        window = timedelta(days=settings.gate.window_days).total_seconds()
        request.since_at = max(1.0, SystemClock().now_ns() / 1e9 - window)

    async def ask(analyzer: Analyzer) -> pb.CompareRevisionsResponse:
        await analyzer.settle()
        return await compare_revisions(analyzer, request, invocation.project_dir)

    compared = ask_analyzer(invocation, ask)
    verdict = judge(compared.series, _rule(settings))
    judged = _Judged(compared, verdict, Coverage.of(compared), settings.gate)
    if as_json:
        click.echo(json.dumps(_document(judged)))
    else:
        for line in [*_lines(judged), *(_annotations(judged) if github else [])]:
            click.echo(plain_line(line))
    return judged.code


@dataclass(frozen=True, slots=True)
class _Judged:
    """A comparison with all that the gate makes of it."""

    compared: pb.CompareRevisionsResponse
    verdict: GateVerdict
    coverage: Coverage
    settings: GateSettings

    @property
    def code(self) -> ExitCode:
        """The exit code: a regression is told before the lack of history."""
        if not self.verdict.is_passed:
            return ExitCode.REGRESSED
        return ExitCode.OK if self.coverage.share >= self.settings.require_history else ExitCode.UNPROVEN


def _rule(settings: Settings) -> GateRule:
    limits: dict[str, float] = {}
    for pattern, text in settings.gate.limits.items():
        try:
            limits[pattern] = float(text)
        except ValueError as error:
            raise CommandError(
                f"[gate.limits] {pattern!r} is {text!r}, expected a share as 0.2", exit_code=ExitCode.USAGE
            ) from error
    return GateRule(settings.gate.max_regression, limits, settings.gate.provisional)


def _lines(judged: _Judged) -> list[str]:
    compared, verdict, coverage = judged.compared, judged.verdict, judged.coverage
    lines = []
    for breach in verdict.breaches:
        lines.append(f"regression   {breach.sentence}")
        lines += [f"    to pass  {remedy}" for remedy in breach.remedies]
    lines += [f"moved        {breach.sentence}: does not count" for breach in verdict.moved]
    lines += [f"waiting      {breach.sentence}: more runs will tell" for breach in verdict.waiting]
    if coverage.sentence:
        lines.append(f"too short    {coverage.sentence}")
    lines += _left_out(compared)
    searched = counted(coverage.count, "series", "series")
    between = (
        f"{compared.base[:12]}..{compared.head[:12]}"
        if compared.base
        else f"{judged.settings.window_days:g} days"
    )
    aside = f", {verdict.within} worse within the limits" if verdict.within else ""
    word = "passed" if judged.code == ExitCode.OK else "failed"
    if judged.code == ExitCode.UNPROVEN:
        wanted = f"{100 * judged.settings.require_history:g} %"
        aside += f"; {100 * coverage.share:.3g} % of the series are long enough, {wanted} have to be"
    beyond = counted(len(verdict.breaches), "regression")
    limit = relative_text(judged.settings.max_regression)
    return [*lines, f"gate {word}: {beyond} beyond the limit ({limit}) in {searched} over {between}{aside}"]


def _left_out(compared: pb.CompareRevisionsResponse) -> list[str]:
    """Series that are at one of two revisions alone."""
    sides = ((compared.only_head_count, "head"), (compared.only_base_count, "base"))
    parts = [f"{counted(count, 'series', 'series')} only at the {side}" for count, side in sides if count]
    return [f"left out     {', '.join(parts)}: nothing to compare with"] if parts else []


def _annotations(judged: _Judged) -> list[str]:
    """Workflow commands of GitHub Actions, one a breach."""
    verdict, coverage = judged.verdict, judged.coverage
    level = "error" if judged.code == ExitCode.UNPROVEN else "notice"
    short = [f"::{level} title=too little history::{coverage.sentence}"] if coverage.sentence else []
    return [
        *short,
        *(f"::error title=performance regression::{_escaped(breach)}" for breach in verdict.breaches),
        *(
            f"::warning title=possible performance regression::{_escaped(breach)}"
            for breach in verdict.waiting
        ),
        *(f"::notice title=cost moved::{_escaped(breach)}" for breach in verdict.moved),
    ]


def _escaped(breach: Breach) -> str:
    text = plain_line(breach.sentence)
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _document(judged: _Judged) -> dict[str, object]:
    compared, verdict, coverage = judged.compared, judged.verdict, judged.coverage
    short = [each.series for each in compared.series if each.point_count < coverage.least]
    return {
        "is_passed": judged.code == ExitCode.OK,
        "breaches": [_breach_document(breach) for breach in verdict.breaches],
        "waiting": [_breach_document(breach) for breach in verdict.waiting],
        "moved": [_breach_document(breach) for breach in verdict.moved],
        "within_limits": verdict.within,
        "history": {
            "series": coverage.count,
            "short": coverage.short,
            "least_points": coverage.least,
            "share": coverage.share,
            "required_share": judged.settings.require_history,
            "sentence": coverage.sentence,
            "short_series": [series_text(each) for each in short],
        },
        "comparison": comparison_document(compared),
    }


def _breach_document(breach: Breach) -> dict[str, object]:
    return {
        "sentence": breach.sentence,
        "limit": breach.limit,
        "is_confirmed": breach.is_confirmed,
        "relative": breach.compared.relative,
        "to_pass": breach.remedies,
        "findings": [finding_sentence(each.finding) for each in breach.compared.findings],
        "group": group_document(breach.moved) if breach.moved is not None else None,
    }
