"""A runtime made by hand, for tests of what is done with predictions: its queries follow the things of a script."""

from dataclasses import dataclass

import torch

from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from tests.core.models import tiny_config
from tests.core.query_world import CONFIG, NOTHING, World


@dataclass(frozen=True)
class Written:
    """The memory of a scripted runtime: which thing each entry stands for, and when it was written."""

    names: tuple[str, ...]
    time: float


class ScriptedRuntime:
    """Answers as the script says for the time that frame and memory tell together; a scene begins at 0."""

    config = tiny_config(
        num_learned=CONFIG.num_learned,
        num_propagated=CONFIG.num_propagated,
        num_admitted=CONFIG.num_propagated,
        memory_length=CONFIG.num_propagated,
        class_names=("car", "truck", "bus"),
    )

    def __init__(self, world: World) -> None:
        self._world = world
        self.ages: list[float] = []  # of the memory, in each step

    def fresh_memory(self) -> Written:
        return Written((NOTHING,) * self.config.num_propagated, 0.0)

    def encode(self, images_N3HW: torch.Tensor) -> torch.Tensor:
        return images_N3HW

    def detect(self, features_NChw: torch.Tensor, frame: Frame, memory: Written) -> tuple[Predictions, Written]:
        if frame.is_first_B:
            memory = self.fresh_memory()
        self.ages.append(float(frame.dt_B))
        time = memory.time + float(frame.dt_B)
        self._world.memory = list(memory.names)
        names, found = self._world.detect(time)
        scores_QS = torch.full((len(names), len(self.config.class_names)), 1e-3)
        scores_QS[found.queries_D, found.labels_D] = found.scores_D
        boxes_Q10 = torch.zeros(len(names), 10)
        boxes_Q10[:, 7] = 1.0
        boxes_Q10[found.queries_D, :3] = found.boxes_D7[:, :3]
        boxes_Q10[found.queries_D, 3:6] = found.boxes_D7[:, 3:6].log()
        boxes_Q10[found.queries_D, 8:] = found.velocities_D2
        predictions = Predictions(scores_QS.logit()[None, None], boxes_Q10[None, None], torch.zeros(1, len(names), 1))
        best = scores_QS.amax(dim=1).topk(self.config.num_admitted).indices
        return predictions, Written(tuple(names[query] for query in best), time)
