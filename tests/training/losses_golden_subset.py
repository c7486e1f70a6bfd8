"""Make the committed subset of the golden training steps, once: python -m tests.training.losses_golden_subset

Two steps with denoising, one without and one with unknown velocities; of the predictions only the
last layer, of the remembered embeddings every 32nd channel.
"""

import gzip
import json

import numpy as np

from tests.core.golden import COMMITTED, WHOLE

_KEPT_STEPS = {"dn": 2, "nodn": 1, "nodn_nanvelo": 1}
_THINNED = {
    "all_cls_scores": np.s_[-1:],
    "all_bbox_preds": np.s_[-1:],
    "after_memory_embedding": np.s_[..., ::4],
}


def main() -> None:
    """Write every file of the subset and print its size."""
    for case, count in _KEPT_STEPS.items():
        stem = f"train_428q_{case}"
        kept = tuple(f"s{j}_" for j in range(count))
        with np.load(WHOLE / f"{stem}.npz") as arrays:
            thin = {key: arrays[key][_THINNED.get(key[3:], ...)] for key in arrays if key.startswith(kept)}
        np.savez_compressed(COMMITTED / f"{stem}.npz", **thin)
        steps = json.loads((WHOLE / f"{stem}.json").read_text())["steps"][:count]
        text = json.dumps({"steps": steps}, separators=(",", ":")).encode()
        (COMMITTED / f"{stem}.json.gz").write_bytes(gzip.compress(text, mtime=0))
    for path in sorted(COMMITTED.glob("train_*")):
        print(f"{path.stat().st_size:9d}  {path.name}")


if __name__ == "__main__":
    main()
