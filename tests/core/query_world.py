"""A detector made by hand, for tests of tracking: queries follow scripted objects, and the memory admits the best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from streampetr_core.decode import Detections
from streampetr_core.geometry import invert_transform, make_transform, transform_points
from streampetr_core.tracking import TrackerConfig, TrackerState, Tracks, track

CONFIG = TrackerConfig(num_learned=10, num_propagated=6, num_classes=3)
NOTHING = "nothing"
STILL = np.eye(4)


@dataclass(frozen=True)
class Thing:
    """An object of the world: where it is at which time, and whether the detector sees it."""

    path: Callable[[float], tuple[float, float]]  # seconds to x, y in the world
    is_seen: Callable[[float], bool] = lambda time: True
    label: Callable[[float], int] = lambda time: 0
    size: tuple[float, float, float] = (4.6, 1.9, 1.6)
    score: float = 0.8
    num_queries: int = 1  # learned queries that find it when no propagated one does, and as many in all


@dataclass
class World:
    """Steps a tracker through frames in which every query's answer follows from the script."""

    things: dict[str, Thing]
    config: TrackerConfig = CONFIG
    world_T_ref: Callable[[float], np.ndarray] = lambda time: STILL
    propagates: bool = True  # False: every query is a learned one, as without memory
    noise: float = 0.0  # metres
    seed: int = 0
    times: list[float] = field(default_factory=list)
    ids: dict[str, list[int | None]] = field(default_factory=dict)  # of each thing, in each frame
    tracks: list[Tracks] = field(default_factory=list)

    def __post_init__(self):
        self.state = TrackerState.fresh(self.config)
        self.memory = [NOTHING] * self.config.num_propagated
        self.random = np.random.default_rng(self.seed)
        self.ids = {name: [] for name in self.things}

    def run(self, times: Sequence[float], admits: Callable[[int], bool] = lambda index: True) -> "World":
        for index, time in enumerate(times):
            self.step(time, admits(index))
        return self

    def step(self, time: float, admits: bool = True) -> Tracks:
        previous = self.times[-1] if self.times else time
        names, detections = self.detect(time)
        scores_Q = torch.zeros(len(names)).index_put((detections.queries_D,), detections.scores_D)
        admitted_K = scores_Q.topk(self.config.num_propagated).indices
        ref_T_prev = invert_transform(self.world_T_ref(time)) @ self.world_T_ref(previous)
        tracks, self.state = track(
            detections, admitted_K if admits else None, self.state, ref_T_prev, time - previous, self.config
        )
        if admits:
            self.memory = [names[query] for query in admitted_K] if self.propagates else self.memory
        self.times.append(time)
        self.tracks.append(tracks)
        self._note(tracks, time)
        return tracks

    def detect(self, time: float) -> tuple[list[str], Detections]:
        """Return which thing each query (learned first) stands for, and what the queries say."""
        names = [NOTHING] * self.config.num_learned + list(self.memory)
        learned = iter(range(self.config.num_learned))
        for name, thing in self.things.items():
            if thing.is_seen(time):
                for _ in range(thing.num_queries - names.count(name)):
                    names[next(learned)] = name
        rows = [self._answer(query, name, time) for query, name in enumerate(names) if name != NOTHING]
        boxes, velocities, scores, labels, queries = (
            (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 5
        )
        return names, Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 7),
            torch.tensor(velocities, dtype=torch.float32).reshape(-1, 2),
            torch.tensor(scores, dtype=torch.float32),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor(queries, dtype=torch.int64),
        )

    def _answer(self, query: int, name: str, time: float):
        """An unseen thing's query keeps its box, but does not believe in it."""
        thing, ref_T_world = self.things[name], invert_transform(self.world_T_ref(time))
        centre = [*np.array(thing.path(time)) + self.noise * self.random.normal(size=2), 1.0]
        velocity = (np.array(thing.path(time + 0.1)) - thing.path(time)) / 0.1
        score = thing.score - 0.01 * (query % 7) if thing.is_seen(time) else 0.05
        box = [*transform_points(ref_T_world, centre), *thing.size, 0.0]
        return box, (ref_T_world[:2, :2] @ velocity).tolist(), score, thing.label(time), query

    def _note(self, tracks: Tracks, time: float) -> None:
        centres_T3 = transform_points(self.world_T_ref(time), tracks.boxes_T7[:, :3])
        for name, thing in self.things.items():
            distances = np.linalg.norm(centres_T3[:, :2] - thing.path(time), axis=1)
            near = len(distances) and thing.is_seen(time) and distances.min() < 1.0
            self.ids[name].append(int(tracks.ids_T[distances.argmin()]) if near else None)

    def switches(self) -> int:
        """How often a thing changes its id."""
        seen = [[number for number in ids if number is not None] for ids in self.ids.values()]
        return sum(a != b for ids in seen for a, b in zip(ids, ids[1:], strict=False))

    def found(self) -> bool:
        """Whether every thing has a track whenever it is seen."""
        return all(
            number is not None or not thing.is_seen(time)
            for name, thing in self.things.items()
            for number, time in zip(self.ids[name], self.times, strict=True)
        )


def line(x: float, y: float, vx: float = 0.0, vy: float = 0.0) -> Callable[[float], tuple[float, float]]:
    """A thing that drives straight on."""
    return lambda time: (x + vx * time, y + vy * time)


def curve(time: float) -> np.ndarray:
    """A vehicle that drives 10 m/s on a curve, far from the world's origin."""
    yaw = 0.4 * time
    rotation = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
    return make_transform(rotation, [25 * np.sin(yaw), 25 * (1 - np.cos(yaw)), 0.0])
