"""Make the committed subset of the golden data from the whole set, once: python -m tests.core.golden_subset

Large arrays are thinned to every s-th element of an axis; `golden.thinned` takes the same elements of ours, since s
follows from the two sizes.
"""

import gzip
import json

import numpy as np

from tests.core.golden import COMMITTED, FOREIGN_LAYOUTS, LAYOUTS, SEQUENCES, WHOLE

_LAST_LAYER = np.s_[-1:]
_KEPT = {
    "infer_428q_small_seq.npz": {
        "all_cls_scores": _LAST_LAYER,
        "all_bbox_preds": _LAST_LAYER,
        "outs_dec_last": np.s_[..., ::16],
        "query_pos": np.s_[..., ::4],
        "neck0": np.s_[:, ::8],
        "pos_embed": np.s_[..., ::16],
        "pos_embed_final": np.s_[..., ::8],
        "memory_aligned": np.s_[..., ::8],
        # A frame is forced from the memory of the frame before; these two are not needed for that.
        "f3_after_memory_embedding": np.s_[..., ::8],
        "f5_after_memory_embedding": np.s_[..., ::8],
    },
    "infer_428q_full.npz": {"all_cls_scores": _LAST_LAYER, "all_bbox_preds": _LAST_LAYER},
}
# Small enough to be committed whole; what the training package is compared with.
_WHOLE_FILES = (
    *("pipeline.json", "pipeline.npz", "dataset.json", "dataset.npz"),
    *("gridmask.npz", "nusc_format.json", "tracker.json"),
)
_PIPELINE_CASES = ("test_r50", "test_vov")


def main() -> None:
    """Write every file of the subset and print its size."""
    for sequence in SEQUENCES.values():
        _write_sequence(sequence.file)
    _write_layouts()
    _write_pipeline()
    for name in _WHOLE_FILES:
        (COMMITTED / name).write_bytes((WHOLE / name).read_bytes())
    for path in sorted(COMMITTED.iterdir()):
        print(f"{path.stat().st_size:9d}  {path.name}")


def _write_sequence(file: str) -> None:
    kept = _KEPT.get(file, {})
    with np.load(WHOLE / file) as arrays:
        thin = {key: arrays[key][kept.get(key, kept.get(key.split("_", 1)[1], ...))] for key in arrays}
    np.savez_compressed(COMMITTED / file, **thin)


def _write_layouts() -> None:
    """Write shapes and constants of all layouts in one file, with the rule's checksums for those that we build."""
    layouts = {}
    for layout in (*LAYOUTS, *FOREIGN_LAYOUTS):
        source = json.loads((WHOLE / f"keys_{layout}.json").read_text())
        keys = source["keys"]
        layouts[layout] = {"shapes": {key: entry["shape"] for key, entry in keys.items()}}
        if layout in LAYOUTS:
            name = "rule_crc_sum_abssum"
            checksums = {key: entry[name][0] for key, entry in keys.items() if name in entry}
            layouts[layout] |= {"constants": source["built_in_constants"], "checksums": checksums}
    text = json.dumps(layouts, separators=(",", ":")).encode()
    (COMMITTED / "layouts.json.gz").write_bytes(gzip.compress(text, mtime=0))


def _write_pipeline() -> None:
    cases = json.loads((WHOLE / "pipeline.json").read_text())["cases"]
    names = ("final_dim", "resize", "resize_dims", "crop", "uint8_crc32", "norm_crc32_float32")
    kept = {case: {name: cases[case][name] for name in names} for case in _PIPELINE_CASES}
    (COMMITTED / "pipeline_test.json").write_text(json.dumps(kept, indent=1) + "\n")
    suffixes = ("ida_intrinsics", "ida_lidar2img", "fmt_lidar2img")
    keys = ["input_intrinsics", "input_extrinsics", *(f"{case}_{s}" for case in _PIPELINE_CASES for s in suffixes)]
    with np.load(WHOLE / "pipeline.npz") as arrays:
        np.savez_compressed(COMMITTED / "pipeline_test.npz", **{key: arrays[key] for key in keys})


if __name__ == "__main__":
    main()
