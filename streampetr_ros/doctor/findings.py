"""What the doctor says. Knows nothing of ROS."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum


class Severity(str, Enum):
    """How bad a finding is: an error keeps the detector from working, or makes it wrong."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it should be, what it is, and what to do about it."""

    name: str  # the same in every report
    severity: Severity
    subject: str  # the topic, camera or frame; empty: the whole rig
    expected: str
    found: str
    remedy: str = ""


def ok(name: str, subject: str, found: str) -> Finding:
    """Return a finding of something that is as it should be."""
    return Finding(name, Severity.OK, subject, "", found)


def warning(name: str, subject: str, expected: str, found: str, remedy: str) -> Finding:
    """Return a finding that costs quality, or that may be meant so."""
    return Finding(name, Severity.WARNING, subject, expected, found, remedy)


def error(name: str, subject: str, expected: str, found: str, remedy: str) -> Finding:
    """Return a finding with which the detector cannot work, or sees things where they are not."""
    return Finding(name, Severity.ERROR, subject, expected, found, remedy)


def count(findings: Sequence[Finding], severity: Severity) -> int:
    """Return how many findings are of a severity."""
    return sum(finding.severity is severity for finding in findings)


def report(findings: Sequence[Finding], *, verbose: bool = False) -> list[str]:
    """Return findings as lines, worst first; those that are well in one line a name, unless `verbose`."""
    lines = []
    for severity in (Severity.ERROR, Severity.WARNING):
        for finding in findings:
            if finding.severity is severity:
                lines += _told(finding)
    well = [finding for finding in findings if finding.severity is Severity.OK]
    if verbose:
        lines += [f"ok       {_title(finding)}: {finding.found}" for finding in well]
    elif well:
        names = Counter(finding.name for finding in well)
        lines.append("ok       " + ", ".join(f"{name} ({n})" if n > 1 else name for name, n in names.items()))
    lines.append(verdict(findings))
    return lines


def verdict(findings: Sequence[Finding]) -> str:
    """Return the numbers of findings in words."""
    numbers = {severity: count(findings, severity) for severity in Severity}
    return f"{numbers[Severity.ERROR]} errors, {numbers[Severity.WARNING]} warnings, {numbers[Severity.OK]} ok"


def as_values(findings: Sequence[Finding]) -> dict:
    """Return findings as values for JSON."""
    listed = [asdict(finding) | {"severity": finding.severity.value} for finding in findings]
    return {"counts": {severity.value: count(findings, severity) for severity in Severity}, "findings": listed}


def _told(finding: Finding) -> list[str]:
    return [
        f"{finding.severity.value:<9}{_title(finding)}",
        f"         expected  {finding.expected}",
        f"         found     {finding.found}",
        f"         remedy    {finding.remedy}",
    ]


def _title(finding: Finding) -> str:
    return f"{finding.name}: {finding.subject}" if finding.subject else finding.name
