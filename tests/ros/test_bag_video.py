"""Pictures and videos of what was published, with the truth in the place of the node's output."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from streampetr_core.drawing import class_colour
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import box_corners
from streampetr_ros.bag.from_nuscenes import write_bag
from streampetr_ros.bag.moments import BagScenery
from streampetr_ros.bag.nuscenes_scene import open_root, read_scene
from streampetr_ros.bag.published import read_published
from streampetr_ros.bag.video import LAYOUT, PictureOptions, Trails, compose, pictures
from streampetr_ros.commands import bag as bag_command
from tests.ros.test_bag_to_results import root, run, write_truth  # noqa: F401

WIDTH = 200
OPTIONS = PictureOptions(tile_width=WIDTH, truth=False)


@pytest.fixture(scope="module")
def bags(root, tmp_path_factory) -> tuple[Path, Path]:  # noqa: F811
    folder = tmp_path_factory.mktemp("video")
    write_bag(read_scene(open_root(root), "scene-0001"), folder / "bag")
    return folder / "bag", write_truth(root, folder / "published")


@pytest.fixture(scope="module")
def scenery(bags) -> BagScenery:
    return BagScenery(bags[0], LAYOUT)


def test_boxes_lie_where_the_objects_are_in_every_camera(bags, scenery):
    tracks = read_published(bags[1]).tracks
    stamp = sorted(tracks)[1]
    (moment,) = scenery.moments([stamp])
    assert list(moment.shots) == list(LAYOUT)
    drawn = compose(moment, tracks[stamp], Trails(), OPTIONS)
    plain = compose(moment, tracks[stamp].select([]), Trails(), OPTIONS)
    height = round(moment.shots["cam_front"].image.shape[0] * WIDTH / moment.shots["cam_front"].image.shape[1])
    hits = 0
    for index, camera in enumerate(LAYOUT):
        left, top = index % 3 * WIDTH, 34 + index // 3 * height
        ours, bare = (picture[top : top + height, left : left + WIDTH].astype(int) for picture in (drawn, plain))
        shot = moment.shots[camera]
        scale = WIDTH / shot.image.shape[1]
        for corners, name in zip(box_corners(tracks[stamp].boxes_D7), tracks[stamp].names_D, strict=True):
            pixels = np.c_[corners, np.ones(8)] @ shot.img_P_base.T
            if pixels[:, 2].min() < 0.5:
                continue
            u, v = (scale * pixels[:, :2] / pixels[:, 2:3]).T
            if u.min() < 4 or v.min() < 24 or u.max() > WIDTH - 4 or v.max() > height - 4 or v.max() - v.min() < 12:
                continue
            part = ours[int(v.max()) - 2 : int(v.max()) + 3, int(u.min()) : int(u.max()) + 1]
            hits += np.abs(part - class_colour(name)).max(axis=-1).min() < 60
        assert not np.array_equal(ours, bare)
    assert hits >= 3  # whole boxes of some size; others lie over each other


def test_trails_grow_with_time(bags, scenery):
    tracks = read_published(bags[1]).tracks
    stamps = sorted(tracks)
    *_, with_past = pictures(scenery, tracks, stamps, OPTIONS)
    (alone,) = pictures(scenery, tracks, stamps[-1:], OPTIONS)
    cameras, above = slice(0, 3 * WIDTH), slice(3 * WIDTH, None)
    assert np.array_equal(with_past[:, cameras], alone[:, cameras])
    assert not np.array_equal(with_past[:, above], alone[:, above])


def test_a_video_has_a_picture_of_every_message_at_its_rate(bags, tmp_path):
    video, picture = tmp_path / "scene.mp4", tmp_path / "scene.png"
    run(bag_command, "video", *bags, "--video", video, "--picture", picture)
    reader = cv2.VideoCapture(str(video))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(2.0)
    size = reader.get(cv2.CAP_PROP_FRAME_WIDTH), reader.get(cv2.CAP_PROP_FRAME_HEIGHT)
    assert size == cv2.imread(str(picture)).shape[1::-1]


def test_a_camera_that_is_not_in_the_bag_stays_dark(bags):
    scenery = BagScenery(bags[0], ("cam_front", "cam_roof"))
    tracks = read_published(bags[1]).tracks
    options = PictureOptions(("cam_front", "cam_roof"), tile_width=WIDTH)
    (picture,) = pictures(scenery, tracks, sorted(tracks)[:1], options)
    assert picture[40:, :WIDTH].std() > 5 and picture[40:, WIDTH : 2 * WIDTH].std() == 0


def test_what_cannot_be_drawn_is_said(bags, tmp_path):
    with pytest.raises(StreampetrError, match="nothing to write; give --video FILE, --picture FILE or both"):
        run(bag_command, "video", *bags)
    with pytest.raises(StreampetrError, match="has none of the topics"):
        run(bag_command, "video", bags[1], bags[1], "--picture", tmp_path / "x.png")
