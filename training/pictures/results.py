"""Reads nuScenes result files, of detection or of tracking.

Border to nuScenes' own conventions: sizes there are width, length, height; quaternions w, x, y, z.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array, box_corners, transform_from_quaternion, transform_points

_KINDS = ("detection", "tracking")
_LENGTHS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}


@dataclass(frozen=True)
class Boxes:
    """D boxes in the world frame of the data set."""

    corners_D83: Array  # in the order of streampetr_core.geometry.box_corners
    centres_D3: Array
    velocities_D2: Array  # NaN where not known
    names: tuple[str, ...]
    scores_D: Array
    ids: tuple[str, ...]  # of the tracks; empty strings for detections

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Results:
    """One result file: `kind` is detection or tracking, `rows` the boxes as the file has them, by sample token."""

    path: Path
    kind: str
    rows: dict[str, list[dict[str, Any]]]

    def boxes(self, token: str, lowest_score: float) -> Boxes:
        """Return the boxes of a sample that reach a score, best first."""
        try:
            scores = np.array([row[f"{self.kind}_score"] for row in self.rows[token]], dtype=np.float64)
            order = [index for index in np.argsort(-scores, kind="stable") if scores[index] >= lowest_score]
            best = [self.rows[token][index] for index in order]
            ids = [str(row["tracking_id"]) if self.kind == "tracking" else "" for row in best]
            return world_boxes(best, [row[f"{self.kind}_name"] for row in best], scores[order], ids)
        except KeyError as error:
            raise self._broken(token, f"has a box without {error}") from None
        except (TypeError, ValueError) as error:
            raise self._broken(token, f"has a box that cannot be read: {error}") from None

    def _broken(self, token: str, what: str) -> StreampetrError:
        return StreampetrError(
            f"{self.path}: sample {token} {what}; write the file again in nuScenes' {self.kind} format"
        )


def read_results(path: Path) -> Results:
    """Read a result file; its boxes tell whether it holds detections or tracks.

    Raises:
        StreampetrError: no such file, no JSON, not nuScenes' format, or no boxes at all.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StreampetrError(f"{path}: not readable as JSON: {error}") from None
    rows = content.get("results") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or not all(isinstance(boxes, list) for boxes in rows.values()):
        raise StreampetrError(
            f'{path}: no nuScenes result file; it must hold {{"meta": {{...}}, "results": {{sample token: [boxes]}}}}'
        )
    first = next((box for boxes in rows.values() for box in boxes), None)
    if first is None:
        raise StreampetrError(f"{path}: holds no box for any of its {len(rows)} samples; there is nothing to show")
    kinds = [kind for kind in _KINDS if isinstance(first, dict) and f"{kind}_name" in first]
    if not kinds:
        raise StreampetrError(f"{path}: its boxes have neither detection_name nor tracking_name")
    return Results(path, kinds[0], rows)


def world_boxes(
    rows: Sequence[dict[str, Any]], names: Sequence[str], scores: Sequence[float], ids: Sequence[str]
) -> Boxes:
    """Return boxes of rows with translation, size, rotation and velocity in nuScenes' conventions.

    Raises KeyError for a missing column, ValueError for one of another length or, velocity aside, not finite.
    """
    columns = {name: [row[name] for row in rows] for name in _LENGTHS}
    arrays = {}
    for name, length in _LENGTHS.items():
        arrays[name] = np.array(columns[name], dtype=np.float64).reshape(len(rows), length)
        if name != "velocity" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is not finite")
    corners = np.empty((len(rows), 8, 3))
    for index, (width, length, height) in enumerate(arrays["size"]):
        world_T_box = transform_from_quaternion(arrays["rotation"][index], arrays["translation"][index])
        corners[index] = transform_points(world_T_box, box_corners([0, 0, 0, length, width, height, 0])[0])
    return Boxes(
        corners, arrays["translation"], arrays["velocity"], tuple(names), np.asarray(scores, np.float64), tuple(ids)
    )
