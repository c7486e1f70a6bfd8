"""Parity with the official code: every recorded array, from backbone to decoded boxes, over sequences of frames."""

import zlib

import numpy as np
import pytest

from tests.core import golden


@pytest.mark.parametrize("folder", golden.folders(), ids=["committed", "whole"][: len(golden.folders())])
@pytest.mark.parametrize(("sequence", "mode"), golden.runs())
def test_every_array_is_that_of_the_official_code(sequence, mode, folder):
    rows = golden.compare(sequence, mode, folder)
    assert {"neck0_slice", "all_cls_scores", "all_bbox_preds", "topk_indexes", "boxes_3d"} <= {
        row.array for row in rows
    }
    wrong = [row for row in rows if not row.ok]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_golden_sequence_changes_its_scene_and_is_forced_in_both():
    frames = golden.official_frames(golden.SEQUENCES["428q_small_seq"].file, golden.folders()[-1])
    assert [str(frame["scene"]) for frame in frames] == [*"AAAABB"]
    assert {1, 2, 3, 5} <= golden.observations("428q_small_seq", "forced").keys()


def test_a_frame_that_was_dropped_in_the_golden_sequence_makes_a_longer_step():
    frames = golden.official_frames(golden.SEQUENCES["428q_small_drop"].file, golden.COMMITTED)
    gaps = np.diff([float(frame["timestamp"]) for frame in frames])
    assert gaps == pytest.approx([0.5, 1.0, 0.5], abs=0.01)


@pytest.mark.skipif(len(golden.folders()) == 1, reason="the whole golden set is not beside the repository")
@pytest.mark.parametrize("sequence", golden.SEQUENCES.values(), ids=golden.SEQUENCES)
def test_the_committed_subset_holds_values_of_the_whole_set(sequence):
    committed, whole = (golden.official_frames(sequence.file, folder) for folder in golden.folders())
    for thin, full in zip(committed, whole, strict=True):
        assert thin.keys() == full.keys()
        for name in thin:
            np.testing.assert_array_equal(thin[name], golden.thinned(full[name], thin[name].shape), err_msg=name)


@pytest.mark.parametrize("layout", [golden.R50_428Q, golden.V2_99_900Q])
def test_the_weight_rule_gives_the_recorded_weights(layout):
    state, checksums = golden.official_state(layout), golden.layouts()[layout]["checksums"]
    assert len(checksums) > 500
    wrong = [key for key, crc in checksums.items() if zlib.crc32(state[key].numpy().tobytes()) != crc]
    assert not wrong
