"""Scenes that are rendered on the fly, as training data."""

import numpy as np
import pytest
import torch

from streampetr_core.geometry import box_corners
from training.data.dataset import DataConfig
from training.data.loading import load
from training.data.online import OnlineData, keyframe
from training.data.sampler import Request, Share, StreamingSampler
from training.recipe import load_recipe
from training.synth.online import OnlineScenes

MODEL = load_recipe("synthetic_smoke").model
SCENES = OnlineScenes(3, "train", (96, 54), 4)


@pytest.fixture(scope="module")
def data():
    return OnlineData(SCENES, 2, MODEL, DataConfig(sequence_pieces=1))


def test_a_request_decides_everything(data):
    (first,), (again,) = data[Request(1, (0, 1))], data[Request(1, (0, 1))]
    assert torch.equal(first.images_NHW3, again.images_NHW3)
    assert torch.equal(first.truth.boxes_G9, again.truth.boxes_G9)
    (other,) = data[Request(1, (0, 2))]
    assert not torch.equal(first.images_NHW3, other.images_NHW3)


def test_scenes_follow_each_other(data):
    samples = [data[Request(index, (0,))][0] for index in (0, 1, 4)]
    assert len(data) == 8
    assert data.sequence_F.tolist() == [0] * 4 + [1] * 4
    assert [sample.is_first for sample in samples] == [True, False, True]
    assert samples[1].time - samples[0].time == pytest.approx(0.5)
    assert samples[0].token.split("/")[0] == samples[1].token.split("/")[0] != samples[2].token.split("/")[0]


def test_truth_lies_where_the_pictures_show_it():
    frame = keyframe(SCENES.scene(0)[2])
    known = {name for name in frame.objects.names}
    assert len(frame.cameras) == 6 and known
    checked = 0
    for camera in frame.cameras:
        assert (camera.objects.boxes_G4[:, 2:] <= (96, 54)).all() and (camera.objects.boxes_G4 >= 0).all()
        corners_G83 = box_corners(frame.objects.boxes_G7)
        cam_T_ref = np.linalg.inv(camera.ref_T_cam)
        points = corners_G83.mean(axis=1) @ cam_T_ref[:3, :3].T + cam_T_ref[:3, 3]
        centres = (points @ camera.intrinsics.T)[:, :2] / points[:, 2:]
        for centre, depth in zip(camera.objects.centres_G2, camera.objects.depths_G, strict=True):
            match = np.abs(centres - centre).max(axis=1) + np.abs(points[:, 2] - depth)
            assert match.min() < 1e-2
            checked += 1
    assert checked > 3


def test_workers_render_the_stream_that_one_process_renders(data):
    share = Share(2)
    streams = []
    for workers in (0, 2):
        batches = load(data, StreamingSampler(data.sequence_F, share, 0), workers, pin=False)
        streams.append([next(batches) for _ in range(2)])
    for (alone,), (together,) in zip(*streams, strict=True):
        assert alone.tokens == together.tokens
        assert len(set(token.split("/")[0] for token in alone.tokens)) == 2
        assert torch.equal(alone.images_BNHW3, together.images_BNHW3)
        assert torch.equal(alone.world_T_ref_B44, together.world_T_ref_B44)
