"""What a faster back-end costs in accuracy, kept beside its engines."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from streampetr_core.errors import StreampetrError
from streampetr_core.runtime import REFERENCE

ACCURACY = "accuracy.json"


@dataclass(frozen=True)
class Run:
    """One evaluation; runs are comparable where all but the runtime and what was reached is the same."""

    runtime: str
    precision: str
    data: str
    samples: int
    resize: str
    mAP: float
    NDS: float

    @property
    def conditions(self) -> tuple[str, int, str]:
        """What two runs must share to be compared."""
        return self.data, self.samples, self.resize


def record(folder: Path, run: Run) -> str:
    """Add a run to `accuracy.json` in a folder of engines, in the place of an earlier one; return what it lost.

    Every run is stored with what it lost against the reference, as far as that has been run under the same conditions.

    Raises:
        StreampetrError: the file is damaged or cannot be written.
    """
    path = folder / ACCURACY
    try:
        runs = [Run(**entry["run"]) for entry in json.loads(path.read_text("utf-8"))] if path.exists() else []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StreampetrError(f"{path}: damaged ({error!r}); delete it") from error
    runs = [other for other in runs if (_name(other), other.conditions) != (_name(run), run.conditions)] + [run]
    references = {other.conditions: other for other in runs if other.runtime == REFERENCE}
    entries = [{"run": asdict(other), "lost": _lost(other, references.get(other.conditions))} for other in runs]
    try:
        path.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be written ({error.strerror})") from error
    lost = entries[-1]["lost"]
    if lost is None:
        return f"{path}: kept; run once more with --runtime {REFERENCE} and the same --engines to have the difference"
    return f"{path}: {_name(run)} loses {lost['mAP']:.4f} of mAP and {lost['NDS']:.4f} of NDS against the reference"


def _name(run: Run) -> str:
    return f"{run.runtime} {run.precision}"


def _lost(run: Run, reference: Run | None) -> dict[str, float] | None:
    if reference is None:
        return None
    return {"mAP": round(reference.mAP - run.mAP, 6), "NDS": round(reference.NDS - run.NDS, 6)}
