"""Which split is meant: roots with several versions and splits, info files, official files."""

import json
import shutil

import pytest

from streampetr_core.errors import StreampetrError
from training.data.prepare import prepare
from training.data.source import open_split
from training.synth import WorldOptions, write_world


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    root = tmp_path_factory.mktemp("source") / "mini"
    write_world(root, WorldOptions(scenes=3, samples=2, width=64, height=36, version="v1.0-mini"))
    return root


def test_of_nuscenes_own_splits_the_validation_split_is_meant(mini):
    infos, dataroot = open_split(mini)
    assert (infos.header.version, infos.header.split, len(infos), dataroot) == ("v1.0-mini", "mini_val", 4, mini)
    assert len(open_split(mini, split="mini_train")[0]) == 2


def test_an_info_file_knows_its_root(mini):
    train, val = sorted(prepare(mini, "v1.0-mini", mini / "infos"))
    infos, dataroot = open_split(val)
    assert infos.tokens == open_split(mini)[0].tokens
    assert dataroot == mini
    assert open_split(shutil.copy(val, mini / "beside.npz"))[1] == mini
    assert open_split(train, mini.parent)[1] == mini.parent
    with pytest.raises(StreampetrError, match="its version is 'v1.0-mini', not 'v1.0-trainval'"):
        open_split(val, version="v1.0-trainval")


def test_where_several_are_meant_the_choice_is_asked_for(mini, tmp_path):
    root = tmp_path / "both"
    shutil.copytree(mini, root)
    shutil.copytree(root / "v1.0-mini", root / "v1.0-own")
    with pytest.raises(StreampetrError, match="which --version. there are: v1.0-mini, v1.0-own"):
        open_split(root)
    names = [scene["name"] for scene in json.loads((root / "v1.0-own" / "scene.json").read_text())]
    (root / "v1.0-own" / "splits.json").write_text(json.dumps({"one": names[:1], "other": names[1:], "empty": []}))
    with pytest.raises(StreampetrError, match="choose one with --split: one, other$"):
        open_split(root, version="v1.0-own")
    assert len(open_split(root, version="v1.0-own", split="other")[0]) == 4
    with pytest.raises(StreampetrError, match="no scenes of split 'empty'; there are those of: one, other"):
        open_split(root, version="v1.0-own", split="empty")


def test_of_a_synthetic_world_the_validation_split_is_meant(tmp_path):
    write_world(tmp_path / "world", WorldOptions(scenes=2, val_scenes=1, samples=2, width=64, height=36))
    assert open_split(tmp_path / "world")[0].header.split == "synth_val"
