"""What pictures of the node and of training share."""

import numpy as np

from streampetr_core.birds_eye import BirdsEye
from streampetr_core.drawing import Tile, class_colour
from streampetr_core.geometry import box_corners, projection
from streampetr_core.scene_drawing import NO_CORNERS, TRUTH, LabelledBoxes, camera_tile, label_footprints

# A camera that looks along x of the frame of the boxes.
CAM_T_REF = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
IMG_P_REF = projection([[200, 0, 200], [0, 200, 100], [0, 0, 1]], CAM_T_REF)
AHEAD = box_corners([[10, 0, 0, 4, 2, 1.5, 0.0]])


def blank() -> np.ndarray:
    return np.zeros((200, 400, 3), np.uint8)


def has(image: np.ndarray, colour: tuple) -> bool:
    return bool((np.abs(image.astype(int) - colour).max(axis=-1) < 30).any())


def test_a_found_object_covers_the_truth_and_a_missed_one_stays_white():
    below = (slice(110, None), slice(150, 250))  # off the label and the camera's name
    found = LabelledBoxes.of_classes(AHEAD, ["car"], ["7"])
    nothing = LabelledBoxes.of_classes(NO_CORNERS, [], [])
    both = camera_tile(Tile("cam", blank()), IMG_P_REF, found, AHEAD)[below]
    missed = camera_tile(Tile("cam", blank()), IMG_P_REF, nothing, AHEAD)[below]
    assert has(both, class_colour("car")) and not has(both, TRUTH)
    assert has(missed, TRUTH) and not has(missed, class_colour("car"))


def test_the_best_box_lies_on_top():
    image = camera_tile(
        Tile("cam", blank()),
        IMG_P_REF,
        LabelledBoxes(np.repeat(AHEAD, 2, axis=0), [(0, 0, 255), (0, 255, 0)], ["", ""]),
    )
    below = image[110:, 150:250]
    assert has(below, (0, 0, 255)) and not has(below, (0, 255, 0))


def test_labels_from_above_keep_off_boxes_and_what_is_to_be_kept_clear():
    window = BirdsEye(400, 400, 20.0)
    found = LabelledBoxes(box_corners([[0, 0, 0, 4, 2, 1.5, 0.0]]), [(0, 0, 255)], ["7"])
    free, crowded = np.zeros((400, 400, 3), np.uint8), np.zeros((400, 400, 3), np.uint8)
    label_footprints(free, window, found)
    everything = box_corners([[0, 0, 0, 40, 40, 1.5, 0.0]])
    label_footprints(crowded, window, found, keep_clear_D83=everything)
    assert free.any() and not crowded.any()
    assert not free[180:221, 190:211].any()  # the box itself
