"""What stands first: of each cohort a verdict, a picture and a table, then what the tests say in sentences."""

from __future__ import annotations

from sousa_bench.analysis.next_steps import deciding
from sousa_bench.analysis.report.against_baselines import against_baselines
from sousa_bench.analysis.report.blocks import (
    MAX_LISTED,
    Block,
    Details,
    Figure,
    Heading,
    Items,
    Options,
    Text,
    Verdict,
    listed,
)
from sousa_bench.analysis.report.conclusion import answer
from sousa_bench.analysis.report.over_data_sets import over_all_data
from sousa_bench.analysis.report.ranking import ranking_table
from sousa_bench.analysis.report.verdict_line import NOTHING_COMPLETED, at_chance_words, named_verdict, verdict
from sousa_bench.analysis.standings import MOST_COHORTS, ROWS, Standings
from sousa_bench.analysis.study import Study

LEADERS_CAPTION = "The combinations of the highest {score} with their 95 % intervals. Shaded: can be the best."


def conclusion(study: Study, options: Options) -> list[Block]:
    """Verdict, picture and table of the first cohorts, what the tests say in sentences, and what must be minded."""
    first = [Verdict(at_chance_words(study))] if study.at_chance else []
    found = study.standings
    shown = [block for cohort in found[:MOST_COHORTS] for block in first_screen(cohort, options)]
    if others := found[MOST_COHORTS:]:
        title = "The other cohort" if len(others) == 1 else f"The other {len(others)} cohorts"
        shown.append(Details(title, [listed([named_verdict(cohort) for cohort in others], ", in combinations.csv")]))
    said = [*answer(study), *against_baselines(study), *_what_decides(study), *over_all_data(study)]
    notes = [Items(study.notes, notes=True)] if study.notes else []
    return [
        Heading("Answer", short="Answer"),
        *(first + shown or [Verdict(NOTHING_COMPLETED)]),
        *([Text(said, answer=True)] if said else []),
        *notes,
    ]


def first_screen(cohort: Standings, options: Options) -> list[Block]:
    """One verdict, one picture and one table, in this order."""
    blocks: list[Block] = [Heading(cohort.title, 3)] if cohort.title else []
    blocks.append(Verdict(verdict(cohort), f"verdict_{cohort.cohort}"))
    if options.plots:
        from sousa_bench.analysis.plots.leaders import leaders

        blocks.append(
            Figure(f"leaders_{cohort.cohort}", leaders(cohort), LEADERS_CAPTION.format(score=cohort.study.task.score))
        )
    blocks += [ranking_table(cohort, 0, ROWS), Text([_table_words(cohort)])]
    if len(cohort.rows) > ROWS:
        of_cohort = f" of cohort {cohort.cohort}" if cohort.title else ""
        others: list[Block] = [ranking_table(cohort, ROWS, MAX_LISTED)]
        if (more := len(cohort.rows) - MAX_LISTED) > 0:
            others.append(Text([f"… and {more} more, in combinations.csv."]))
        rest = len(cohort.rows) - ROWS
        title = "The other combination" if rest == 1 else f"The other {rest} combinations"
        blocks.append(Details(f"{title}{of_cohort}", others))
    return blocks


def _table_words(cohort: Standings) -> str:
    """How many combinations the table shows, and what its intervals belong to."""
    number = len(cohort.rows)
    said = [f"{ROWS} of {number} combinations shown, the others below."] if number > ROWS else []
    if cohort.leads:
        said.append(
            "Points behind the highest, with the interval that holds for all comparisons of the family at once (95 %): "
            "who can be the best is who has zero in it."
        )
    return " ".join(said)


def _what_decides(study: Study) -> list[str]:
    """Which of the next commands decide more, the cheapest first."""
    found = [] if study.at_chance else [f"{step.title[0].lower()}{step.title[1:]}" for step in deciding(study)]
    if not found:
        return []
    return [
        f"The leader was chosen on these test clips. What decides more, the cheapest first: {'; '.join(found)} (under "
        "Next commands)."
    ]
