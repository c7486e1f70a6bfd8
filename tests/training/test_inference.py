"""`streampetr test` from end to end: a small synthetic world, a tiny model without knowledge, the devkit as judge."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from streampetr_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from streampetr_core.config import NUSCENES_CLASSES
from streampetr_core.decode import decode_detections
from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.geometry import invert_transform, projection
from streampetr_core.preprocess import normalise, plan_resize, resize_crop_exact
from streampetr_core.runtime import REFERENCE, RuntimeOptions
from streampetr_core.runtime.engine_files import write_manifest
from tests.core.models import lively_detector, tiny_config
from tests.training import golden
from training.commands import test as command
from training.commands import track as track_command
from training.data.images import read_image
from training.data.infos import CAMERAS, Infos
from training.data.infos_file import save_infos
from training.data.prepare import prepare
from training.data.source import open_split
from training.data.sweeps import with_sweeps
from training.data.tables import open_tables
from training.evaluation.accuracy import ACCURACY
from training.evaluation.greedy_tracker import TRACKED_CLASSES
from training.evaluation.inference import InferenceConfig, infer
from training.evaluation.results import frame_results, read_results
from training.synth import WorldOptions, write_world

WORLD = WorldOptions(scenes=2, val_scenes=2, samples=3, seed=3, width=128, height=72)
MODEL = tiny_config(num_learned=40, num_propagated=16, num_admitted=16, memory_length=48)
ON_CPU = RuntimeOptions(REFERENCE, device="cpu")
FAR = np.array([400_000.0, 5_000_000.0, 100.0])  # metres, as UTM coordinates are


def save_lively(path, **changes):
    model = replace(MODEL, **changes)
    state = {k: v for k, v in lively_detector(model).state_dict().items() if not k.endswith("num_batches_tracked")}
    save_checkpoint(Checkpoint(model, state, "none", "made for a test"), path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("inference") / "world"
    write_world(root, WORLD)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_lively(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def infos(root):
    return open_split(root)[0]


def find(infos, root, checkpoint, **options):
    """Return the detections of every sample, bit for bit the same on every call."""
    output = infer(infos, root, InferenceConfig(checkpoint, **{"runtime": ON_CPU, "threads": 1, **options}))
    pairs = zip(infos, output.frames, strict=True)
    return [frame_results(frame.detections, keyframe, output.model.class_names) for keyframe, frame in pairs]


@pytest.fixture(scope="module")
def found(infos, root, checkpoint):
    return find(infos, root, checkpoint)


def some(infos, choose):
    return Infos.from_keyframes(infos.header, [keyframe for keyframe in infos if choose(keyframe)])


def test_results_are_those_of_stepping_the_detector_by_hand(infos, root, checkpoint, found):
    detector = load_checkpoint(checkpoint).detector().requires_grad_(False)
    memory, previous = detector.fresh_memory(), None
    for keyframe, expected in zip(infos, found, strict=True):
        previous = keyframe if keyframe.previous == "" else previous
        predictions, memory = detector.step(frame_of(keyframe, previous, root), memory)
        ours = frame_results(decode_detections(predictions, MODEL)[0], keyframe, MODEL.class_names)
        assert_alike(ours, expected, 1e-4)
        previous = keyframe


@pytest.mark.parametrize("options", [("torch", "fp32"), ("onnxruntime", "fp32")])
def test_other_runtimes_find_the_same(infos, root, checkpoint, found, options):
    if options[0] == "onnxruntime":
        pytest.importorskip("onnxruntime")
    ours = find(infos, root, checkpoint, runtime=RuntimeOptions(*options, device="cpu"))
    assert ours != found  # they round otherwise: it was another runtime
    for one, other in zip(ours, found, strict=True):
        assert_alike(one, other, 2e-3)


def frame_of(keyframe, previous, root):
    images, intrinsics, img_P_ref = [], [], []
    for camera in keyframe.cameras:
        plan = plan_resize(WORLD.width, WORLD.height, MODEL)
        images.append(torch.from_numpy(resize_crop_exact(read_image(root / camera.path), plan)))
        intrinsics.append(plan.input_T_source @ camera.intrinsics)
        img_P_ref.append(projection(intrinsics[-1], invert_transform(camera.ref_T_cam)))
    return Frame(
        normalise(torch.stack(images), MODEL)[None],
        torch.from_numpy(np.stack(intrinsics)).float()[None],
        torch.from_numpy(np.stack(img_P_ref)).float()[None],
        torch.from_numpy(invert_transform(keyframe.world_T_ref) @ previous.world_T_ref).float()[None],
        torch.tensor([(keyframe.timestamp - previous.timestamp) / 1e6]).float(),
        torch.tensor([keyframe is previous]),
    )


def assert_alike(ours, expected, tolerance):
    assert [entry["detection_name"] for entry in ours] == [entry["detection_name"] for entry in expected]
    for key in ("translation", "size", "velocity", "detection_score"):
        a, b = (np.array([entry[key] for entry in entries]) for entries in (ours, expected))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def test_every_scene_begins_with_an_empty_memory(infos, root, checkpoint, found):
    second = infos[len(infos) - 1].scene
    alone = some(infos, lambda keyframe: keyframe.scene == second)
    assert 0 < len(alone) < len(infos)
    assert find(alone, root, checkpoint) == found[-len(alone) :]


def test_without_memory_frames_are_independent(infos, root, checkpoint, found):
    one = some(infos, lambda keyframe: keyframe.token == infos.tokens[1])
    without = find(infos, root, checkpoint, use_memory=False)
    assert without[1] == find(one, root, checkpoint)[0]
    assert without[0] == found[0]
    assert without[1] != found[1]


def test_a_dropped_camera_is_not_looked_at(infos, root, checkpoint, found, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(root, spoilt)
    other = {path.name: path for path in (spoilt / "samples" / "CAM_FRONT").iterdir()}
    for path, picture in zip((spoilt / "samples" / "CAM_BACK").iterdir(), other.values(), strict=True):
        shutil.copy(picture, path)
    dropped = find(infos, root, checkpoint, dropped_cameras=("CAM_BACK",))
    assert dropped == find(infos, spoilt, checkpoint, dropped_cameras=("CAM_BACK",))
    assert dropped != found
    assert find(infos, spoilt, checkpoint) != found


def test_large_coordinates_and_times_cost_no_precision(infos, root, checkpoint, found):
    def moved(keyframe):
        pose = replace(keyframe.world_T_base, translation=keyframe.world_T_base.translation + FAR)
        return replace(keyframe, world_T_base=pose, timestamp=keyframe.timestamp + 10**15)

    far = find(Infos.from_keyframes(infos.header, [moved(keyframe) for keyframe in infos]), root, checkpoint)
    for entries, expected in zip(far, found, strict=True):
        here = [entry | {"translation": (entry["translation"] - FAR).tolist()} for entry in entries]
        assert_alike(here, expected, 1e-3)


@pytest.mark.parametrize("pixels", ["fast", "reduced"])
def test_other_resizes_are_other_paths_to_nearly_the_same(infos, root, checkpoint, found, pixels):
    first = some(infos, lambda keyframe: keyframe.token == infos.tokens[0])
    (other,) = find(first, root, checkpoint, pixels=pixels)
    assert other != found[0]
    assert [entry["detection_score"] for entry in other][0] == pytest.approx(found[0][0]["detection_score"], abs=0.05)


def test_the_order_of_classes_is_the_checkpoints_own(infos, root, found, tmp_path):
    """Files name classes, so a checkpoint of another order needs no care."""
    turned = save_lively(tmp_path / "turned.safetensors", class_names=NUSCENES_CLASSES[::-1])
    one = some(infos, lambda keyframe: keyframe.token == infos.tokens[0])
    names = [{entry["detection_name"] for entry in entries} for entries in (find(one, root, turned)[0], found[0])]
    assert names[0] and names[1]
    turn = dict(zip(NUSCENES_CLASSES, NUSCENES_CLASSES[::-1], strict=True))
    best = [entries[0]["detection_name"] for entries in (find(one, root, turned)[0], found[0])]
    assert turn[best[0]] == best[1]


def write_recipe(path, data=None, **model):
    content = {"model": replace(MODEL, **model).to_dict(), "schedule": {"epochs": 1}, "data": data or {}}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path / "mine.yaml")


def run(recipe, checkpoint, out, *options):
    golden.run_command(command, recipe, "--checkpoint", checkpoint, "--out", out, "--device", "cpu", *options)


def on_tables(root):
    return ("--dataroot", root, "--version", "v1.0-synth")


def test_two_processes_write_the_same_bytes_as_one(recipe, root, checkpoint, tmp_path, capsys):
    options = (*on_tables(root), "--eval", "bbox", "track", "--tracker", "identity", "--threads", 1)
    run(recipe, checkpoint, tmp_path / "one", *options)
    printed = capsys.readouterr().out
    assert "mAP 0.0" in printed and "AMOTA" in printed
    run(recipe, checkpoint, tmp_path / "two", *options, "--format-only", "--jobs", 2)
    results = {"results_nusc.json", "identities.json", "tracking_result.json"}
    for name in results:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    written = {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*.json")}
    metrics = {"metrics_summary.json", "metrics_details.json"}
    assert written >= results | metrics | {f"tracking_metrics/{name}" for name in metrics}
    check_tracks(read_results(tmp_path / "one" / "tracking_result.json"))
    assert json.loads((tmp_path / "one" / "tracking_result.json").read_text())["meta"]["use_camera"]


def test_what_a_back_end_costs_is_kept_beside_its_engines(recipe, root, checkpoint, tmp_path, capsys):
    engines = tmp_path / "engines"
    engines.mkdir()
    write_manifest(engines, load_checkpoint(checkpoint), precision="fp32")

    def evaluate(*options):
        run(recipe, checkpoint, tmp_path / "out", *on_tables(root), "--engines", engines, *options)
        summary = json.loads((tmp_path / "out" / "metrics_summary.json").read_text())
        return summary["mean_ap"], summary["nd_score"], capsys.readouterr().out

    def kept():
        return {f"{x['run']['runtime']} {x['run']['resize']}": x for x in json.loads((engines / ACCURACY).read_text())}

    _, nds, printed = evaluate("--runtime", "torch")
    assert "run once more with --runtime reference" in printed and kept()["torch exact"]["lost"] is None
    assert "torch fp32 loses" not in evaluate("--reduced-resize")[-1]  # under other conditions
    _, reference_nds, printed = evaluate()
    assert "reference fp32 loses 0.0000 of mAP and 0.0000 of NDS" in printed
    assert kept()["torch exact"]["lost"]["NDS"] == pytest.approx(reference_nds - nds, abs=1e-6)
    assert kept()["torch exact"]["run"]["samples"] == 6
    before = (engines / ACCURACY).read_text()
    evaluate("--drop-cameras", "CAM_FRONT", "--runtime", "torch")
    assert (engines / ACCURACY).read_text() == before
    (engines / ACCURACY).write_text("[{}]")
    with pytest.raises(StreampetrError, match=r"accuracy.json: damaged .*; delete it"):
        evaluate()
    write_manifest(engines, load_checkpoint(save_lively(tmp_path / "other.safetensors", max_detections=7)))
    with pytest.raises(StreampetrError, match="engines: made from other weights or another configuration"):
        evaluate()


def test_the_recipe_says_where_its_validation_data_is(root, checkpoint, infos, tmp_path):
    (path,) = prepare(root, "v1.0-synth", tmp_path / "infos")
    recipe = write_recipe(tmp_path / "mine.yaml", data={"dataroot": str(root), "val_infos": str(path)})
    run(recipe, checkpoint, tmp_path / "out", "--format-only")
    assert tuple(read_results(tmp_path / "out" / "results_nusc.json")) == infos.tokens
    run(recipe, checkpoint, tmp_path / "again", "--format-only", *on_tables(root))
    results = [(tmp_path / out / "results_nusc.json").read_bytes() for out in ("out", "again")]
    assert results[0] == results[1]
    elsewhere = write_recipe(tmp_path / "other.yaml", data={"dataroot": str(tmp_path / "gone")})
    with pytest.raises(StreampetrError, match="gone: no such folder; say where the data is with --dataroot"):
        run(elsewhere, checkpoint, tmp_path / "out")
    with pytest.raises(StreampetrError, match="infos_v1.0-trainval_val.npz: no such info file"):
        run(elsewhere, checkpoint, tmp_path / "out", "--dataroot", root)


def test_rendered_scenes_cannot_be_evaluated_but_a_written_world_can(root, checkpoint, tmp_path):
    recipe = write_recipe(tmp_path / "mine.yaml", data={"synthetic": {"scenes": 2}})
    with pytest.raises(StreampetrError, match=r"rendered on the fly.*`streampetr synth`.*--dataroot"):
        run(recipe, checkpoint, tmp_path / "out")
    run(recipe, checkpoint, tmp_path / "out", "--format-only", "--dataroot", root)
    assert len(read_results(tmp_path / "out" / "results_nusc.json")) == 6


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(root, checkpoint, tmp_path):
    recipe = write_recipe(tmp_path / "mine.yaml", num_layers=3, max_detections=100)
    message = (
        r"tiny\.safetensors: holds a model of another configuration than recipe 'mine' \(num_layers 2 instead of 3; max"
    )
    with pytest.raises(StreampetrError, match=message):
        run(recipe, checkpoint, tmp_path / "out", *on_tables(root))
    assert not (tmp_path / "out").exists()


def track_again(folder, infos_path, *options):
    golden.run_command(
        track_command, folder / "results_nusc.json", "--infos", infos_path, "--method", "identity", *options
    )
    return read_results(folder / "tracking_result.json")


def test_identities_are_those_of_the_results_beside_them(recipe, root, checkpoint, tmp_path, capsys):
    (path,) = prepare(root, "v1.0-synth", tmp_path / "infos")
    out = tmp_path / "out"
    run(recipe, checkpoint, out, *on_tables(root), "--format-only")
    content = json.loads((out / "identities.json").read_text())
    for token, entries in read_results(out / "results_nusc.json").items():
        boxes = {}
        for query, entry in zip(content["queries"][token], entries, strict=True):
            assert boxes.setdefault(query, entry["translation"]) == entry["translation"]
        assert 1 < len(boxes) < len(entries)
        assert len(set(content["admitted"][token])) == MODEL.num_admitted
    check_tracks(track_again(out, path))
    assert "queries: " in capsys.readouterr().out
    other = content | {"queries": {token: queries[1:] for token, queries in content["queries"].items()}}
    (out / "identities.json").write_text(json.dumps(other))
    with pytest.raises(StreampetrError, match="queries of other results than those beside it"):
        track_again(out, path)
    (out / "identities.json").write_text("[]")
    with pytest.raises(StreampetrError, match="not what `streampetr test` writes"):
        track_again(out, path)
    (out / "identities.json").unlink()
    check_tracks(track_again(out, path))
    assert "distance alone decides" in capsys.readouterr().out


def check_tracks(tracks):
    for entries in tracks.values():
        ids = [entry["tracking_id"] for entry in entries]
        assert len(ids) == len(set(ids))
        assert {entry["tracking_name"] for entry in entries} <= set(TRACKED_CLASSES)
    per_frame = [{entry["tracking_id"] for entry in entries} for entries in tracks.values()]
    assert any(a & b for a, b in zip(per_frame, per_frame[1:], strict=False))


@pytest.mark.parametrize("tracker", ["greedy", "hungarian"])
def test_the_published_trackers_work_on_an_info_file_too(recipe, root, checkpoint, tmp_path, tracker):
    (path,) = prepare(root, "v1.0-synth", tmp_path / "infos")
    options = ("--infos", path, "--dataroot", root, "--eval", "track", "--tracker", tracker, "--format-only")
    run(recipe, checkpoint, tmp_path / "out", *options, "--no-memory")
    check_tracks(read_results(tmp_path / "out" / "tracking_result.json"))
    assert json.loads((tmp_path / "out" / "identities.json").read_text())["admitted"] == {}


def test_classes_that_the_data_does_not_know_are_named(root, tmp_path):
    classes = ("tram", *NUSCENES_CLASSES[1:])
    trams = save_lively(tmp_path / "trams.safetensors", class_names=classes)
    recipe = write_recipe(tmp_path / "trams.yaml", class_names=classes)
    with pytest.raises(StreampetrError, match="classes tram are none of the info file's"):
        run(recipe, trams, tmp_path / "out", *on_tables(root))


@pytest.fixture(scope="module")
def swept_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("swept") / "world"
    write_world(root, replace(WORLD, scenes=1, val_scenes=1, sweeps=True))
    return root


def test_frames_between_keyframes_are_evenly_spaced_and_geometry_holds_for_their_own_time(swept_root):
    infos = open_split(swept_root)[0]
    frames = list(with_sweeps(open_tables(swept_root), infos, 12))
    assert len(frames) == 2 * 6 + 1
    assert [bool(frame.token) for frame in frames] == [number % 6 == 0 for number in range(13)]
    steps = np.diff([frame.timestamp for frame in frames]) / 1e6
    np.testing.assert_allclose(steps, 1 / 12, atol=0.002)
    paths = [camera.path for frame in frames for camera in frame.cameras]
    assert len(set(paths)) == len(paths)
    for number, frame in enumerate(frames):
        exposed = [camera.timestamp - frame.timestamp for camera in frame.cameras]
        np.testing.assert_allclose(exposed, [c.timestamp - frames[0].timestamp for c in frames[0].cameras], atol=2000)
        before, after = frames[max(0, number - 1)], frames[min(12, number + 1)]
        world_T_cam = frame.world_T_ref @ frame.cameras[0].ref_T_cam
        between = (before.world_T_ref[:3, 3] + after.world_T_ref[:3, 3]) / 2
        if 0 < number < 12:
            np.testing.assert_allclose(frame.world_T_ref[:3, 3], between, atol=0.05)
        np.testing.assert_allclose(world_T_cam[:3, 3], frame.world_T_ref[:3, 3], atol=3)


def test_more_frames_than_there_are_sweeps_is_said(swept_root, root):
    with pytest.raises(StreampetrError, match="CAM_FRONT has too few sweeps for 24 frames a second"):
        with_sweeps(open_tables(swept_root), open_split(swept_root)[0], 24)
    with pytest.raises(StreampetrError, match="has too few sweeps for 4 frames a second"):
        with_sweeps(open_tables(root), open_split(root)[0], 4)


def test_a_higher_rate_changes_nothing_while_entries_fall_on_keyframes(recipe, swept_root, checkpoint, tmp_path):
    def results(name, *options):
        run(recipe, checkpoint, tmp_path / name, *on_tables(swept_root), "--format-only", "--threads", 1, *options)
        return read_results(tmp_path / name / "results_nusc.json")

    slow, fast = results("slow"), results("fast", "--rate", 12)
    assert fast == slow
    every_frame = results("every", "--rate", 12, "--memory-interval", 0)
    between = results("between", "--rate", 12, "--memory-phase", 0.25)
    assert every_frame.keys() == between.keys() == slow.keys()
    first = next(iter(slow))
    assert every_frame[first] == between[first] == slow[first]
    assert every_frame != slow and between != slow and between != every_frame


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", 0), "--rate 0: give a number above 0"),
        (("--split", "val"), "no scenes of split 'val'; there are those of: synth_val"),
        (("--version", "v1.0-mini"), "no nuScenes tables of version 'v1.0-mini' here; there are: v1.0-synth"),
        (("--drop-cameras", "CAM_TOP"), "--drop-cameras CAM_TOP: no such camera; there are: CAM_FRONT, "),
        (("--drop-cameras", *CAMERAS), "all cameras are dropped; leave at least one"),
        (("--jobs", 0), "--jobs 0: give a number from 1 to 64"),
        (("--threads", 0), "--threads 0: give 1 or more"),
        (("--runtime", "fast"), "no runtime 'fast'; there are auto, torch, "),
        (("--runtime", "openvino", "--precision", "int8"), "int8.*streampetr export"),
    ],
)
def test_bad_options_are_named(recipe, root, checkpoint, tmp_path, options, message):
    with pytest.raises(StreampetrError, match=message):
        run(recipe, checkpoint, tmp_path / "out", *on_tables(root), *options)


def test_bad_files_are_named(recipe, root, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StreampetrError, match=r"file/out: cannot be written \(Not a directory\); choose another"):
        run(recipe, checkpoint, tmp_path / "file" / "out")
    with pytest.raises(StreampetrError, match="no such model file"):
        run(recipe, tmp_path / "none.safetensors", tmp_path / "out")
    with pytest.raises(StreampetrError, match="no recipe 'none'; there are "):
        run("none", checkpoint, tmp_path / "out")
    with pytest.raises(StreampetrError, match="which --version. there is no <version>/scene.json below it"):
        run(recipe, checkpoint, tmp_path / "out", "--dataroot", tmp_path, "--split", "val")
    with pytest.raises(StreampetrError, match="no such info file"):
        run(recipe, checkpoint, tmp_path / "out", "--infos", tmp_path / "infos.npz")
    (path,) = prepare(root, "v1.0-synth", tmp_path / "infos")
    with pytest.raises(StreampetrError, match="its split is 'synth_val', not 'train'; give the info file of 'train'"):
        run(recipe, checkpoint, tmp_path / "out", "--infos", path, "--dataroot", root, "--split", "train")
    with pytest.raises(StreampetrError, match="no nuScenes tables of version 'v1.0-synth' here"):
        run(recipe, checkpoint, tmp_path / "out", "--infos", path)
    with pytest.raises(StreampetrError, match=r"CAM_FRONT.*no such image, and 35 more are missing; check dataroot"):
        run(recipe, checkpoint, tmp_path / "out", "--infos", path, "--format-only")


def test_without_annotations_only_results_are_written(recipe, root, checkpoint, infos, tmp_path):
    path = tmp_path / "infos" / "test.npz"
    save_infos(Infos(replace(infos.header, annotated=False), infos.columns), path)
    with pytest.raises(StreampetrError, match="'synth_val' of v1.0-synth has no annotations.*use --format-only"):
        run(recipe, checkpoint, tmp_path / "out", "--infos", path, "--dataroot", root)
    run(recipe, checkpoint, tmp_path / "out", "--infos", path, "--dataroot", root, "--format-only")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results_nusc.json", "identities.json"}


def test_a_damaged_image_stops_all_processes(recipe, root, checkpoint, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(root, spoilt)
    image = sorted((spoilt / "samples" / "CAM_BACK").iterdir())[-1]
    image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(StreampetrError, match=f"{image.name}: a damaged image"):
        run(recipe, checkpoint, tmp_path / "out", *on_tables(spoilt), "--jobs", 2)
