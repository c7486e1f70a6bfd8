"""The native weights file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from streampetr_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, untrained_checkpoint
from streampetr_core.errors import StreampetrError
from tests.core.models import make_frame, tiny_config

CONFIG = tiny_config()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(untrained_checkpoint(CONFIG, 1), path)
    return path


def test_a_checkpoint_survives_a_round_trip(path):
    original, loaded = untrained_checkpoint(CONFIG, 1), load_checkpoint(path)
    assert (loaded.config, loaded.licence, loaded.source) == (CONFIG, "Apache-2.0", "untrained, seed 1")
    assert loaded.state.keys() == original.state.keys()
    assert all(torch.equal(loaded.state[name], original.state[name]) for name in loaded.state)


def test_a_detector_has_the_weights_of_its_checkpoint(path):
    checkpoint = load_checkpoint(path)
    detector = checkpoint.detector()
    assert not detector.training
    state = detector.state_dict()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.state.items())
    same, _ = checkpoint.detector().step(make_frame(CONFIG), detector.fresh_memory())
    torch.testing.assert_close(same.boxes, detector.step(make_frame(CONFIG), detector.fresh_memory())[0].boxes)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(path, tmp_path, kind):
    checkpoint = load_checkpoint(path)
    half = {name: value.to(kind) for name, value in checkpoint.state.items()}
    save_checkpoint(Checkpoint(CONFIG, half, "x", "y"), tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * path.stat().st_size
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert {value.dtype for value in loaded.state.values()} == {torch.float32}
    name = "queries.reference_points"
    torch.testing.assert_close(loaded.state[name], checkpoint.state[name], rtol=torch.finfo(kind).eps, atol=1e-4)


def test_the_auxiliary_head_is_kept_in_the_file_and_not_asked_of_it(path, tmp_path):
    checkpoint = load_checkpoint(path)
    state = {**checkpoint.state, "aux_head.cls.weight": torch.ones(3)}
    save_checkpoint(Checkpoint(CONFIG, state, "x", "y"), tmp_path / "aux.safetensors")
    loaded = load_checkpoint(tmp_path / "aux.safetensors")
    assert torch.equal(loaded.state["aux_head.cls.weight"], torch.ones(3))
    assert not any("aux" in name for name in loaded.detector().state_dict())


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        StreampetrError, match=r"gone\.safetensors: no such model file; make one with `streampetr convert`"
    ):
        load_checkpoint(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(StreampetrError, match=r"model\.safetensors: not a safetensors file .*streampetr convert"):
        load_checkpoint(path)


def test_a_pth_file_is_refused_with_the_remedy(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "model.pth")
    with pytest.raises(StreampetrError, match=r"model\.pth: not a safetensors file .* convert a \.pth with"):
        load_checkpoint(tmp_path / "model.pth")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(StreampetrError, match="a safetensors file, but not one that `streampetr convert`"):
        load_checkpoint(tmp_path / "foreign.safetensors")


def rewritten(path, state=None, **metadata):
    """Replace tensors and metadata of a native file, bypassing the checks of saving."""
    checkpoint = load_checkpoint(path)
    values = {"format": "streampetr-1", "config": json.dumps(CONFIG.to_dict()), "licence": "x", "source": "y"}
    save_file(checkpoint.state if state is None else state, path, {**values, **metadata})
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG.to_dict(), "surprise": 1}, "unknown model keys surprise"),
        ({"name": "x"}, "missing model keys backbone"),
        (
            {**CONFIG.to_dict(), "num_learned": 13},
            r"1 of another shape: queries.reference_points \(12, 3\) instead of \(13, 3\)",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_with_the_file(path, config, message):
    with pytest.raises(StreampetrError, match=rf"model\.safetensors.*{message}"):
        load_checkpoint(rewritten(path, config=json.dumps(config)))


def test_missing_and_unknown_tensors_are_listed(path):
    state = load_file(path)
    state["extra"] = state.pop("queries.start_points")
    with pytest.raises(StreampetrError, match=r"1 missing: queries\.start_points; 1 unknown: extra"):
        load_checkpoint(rewritten(path, state))


def test_a_failed_save_leaves_the_old_file(path):
    before = path.read_bytes()
    path.with_name(path.name + ".partial").mkdir()  # so nothing can be written there
    with pytest.raises(StreampetrError, match=r"model\.safetensors: cannot be written"):
        save_checkpoint(untrained_checkpoint(CONFIG), path)
    assert path.read_bytes() == before


def test_a_save_leaves_nothing_beside_its_file(path):
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StreampetrError, match=r"file/model\.safetensors: cannot be written"):
        save_checkpoint(untrained_checkpoint(CONFIG), tmp_path / "file" / "model.safetensors")
