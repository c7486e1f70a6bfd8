"""Outcomes as a table in Markdown."""

from collections.abc import Sequence

from bench.reliability.trial import Outcome, state_name

_HEAD = (
    "| fault | lives | detections again | well again | images sent = in | in sets | dropped | sets | published "
    "| dropped | adds up | MB before, after | MB/h | it says |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return one row for each fault."""
    return _HEAD + "".join(_row(outcome) for outcome in outcomes)


def _row(outcome: Outcome) -> str:
    counts = outcome.counts
    said = ", ".join(dict.fromkeys(f"`{state_name(text)}`" for text in outcome.said)) or "nothing"
    cells = [
        outcome.fault,
        "yes" if outcome.lived else "NO",
        _seconds(outcome.recovered_after),
        _seconds(outcome.well_after),
        f"{outcome.images_sent} = {counts.images}"
        if outcome.images_sent == counts.images
        else f"{outcome.images_sent}, {counts.images}",
        str(counts.in_sets),
        str(sum(counts.images_dropped.values())),
        str(counts.sets),
        str(counts.published),
        str(sum(counts.sets_dropped.values())),
        "yes" if outcome.adds_up else "NO",
        f"{outcome.memory_before:.0f}, {outcome.memory_after:.0f}",
        f"{outcome.memory_slope:+.0f}",
        said,
    ]
    return f"| {' | '.join(cells)} |\n"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
