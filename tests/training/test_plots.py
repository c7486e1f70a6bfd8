"""What `streampetr plot` reads and draws; the devkit's own evaluation writes the metrics."""

import argparse
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes

from streampetr_core.errors import StreampetrError
from training.commands import plot
from training.pictures.curves import read_curves, run_names, smooth
from training.pictures.logs import read_log
from training.pictures.metrics import read_metrics
from training.pictures.plots import plot_average_precision, plot_curves, plot_precision_recall
from training.synth import WorldOptions, write_world

HEADER = {"run": "r50", "seed": 0}


def write_log(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def own_lines(steps, offset=0.0):
    return [{"step": s, "epoch": s / 100, "loss": 10 / s + offset, "loss_cls": 1 / s, "host": "a"} for s in steps]


def mmcv_line(epoch, iteration, loss, mode="train", **values):
    return {"mode": mode, "epoch": epoch, "iter": iteration, "lr": 2e-4, "loss": loss, **values}


@pytest.fixture
def ours(tmp_path):
    return write_log(tmp_path / "r50" / "log.jsonl", [HEADER, *own_lines(range(10, 210, 10))])


@pytest.fixture
def by_epoch(tmp_path):
    lines = [{"env_info": "", "seed": 0}]
    for epoch in (1, 2, 3):
        lines += [mmcv_line(epoch, iteration, 100 * epoch + iteration) for iteration in (50, 100, 150)]
        lines += [{"mode": "val", "epoch": epoch, "iter": 81, "lr": 1e-4, "NuScenes/mAP": epoch / 10}]
    return write_log(tmp_path / "v99" / "20230101_120000.log.json", lines)


def test_our_own_log(ours):
    log = read_log(ours)
    assert list(log) == ["loss", "loss_cls"]
    assert log["loss"].iterations.tolist() == list(range(10, 210, 10))
    assert log["loss"].epochs == pytest.approx(np.arange(10, 210, 10) / 100)
    assert log["loss"].values == pytest.approx(10 / np.arange(10, 210, 10))


def test_a_log_without_header_or_with_iteration(tmp_path):
    lines = [{"iteration": step, "epoch": 0.1, "loss": 1} for step in (1, 2)]
    assert read_log(write_log(tmp_path / "log.jsonl", lines))["loss"].iterations.tolist() == [1, 2]


def test_a_key_that_only_some_lines_have(tmp_path):
    lines = [*own_lines([10, 20]), {"step": 20, "epoch": 0.2, "val/mAP": 0.4}, *own_lines([30])]
    log = read_log(write_log(tmp_path / "log.jsonl", lines))
    assert log["val/mAP"].iterations.tolist() == [20]
    assert log["loss"].iterations.tolist() == [10, 20, 30]


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    lines = [*own_lines([10, 20, 30, 40]), {"step": 40, "epoch": 0.4, "mAP": 0.1}, *own_lines([30, 50], offset=100)]
    log = read_log(write_log(tmp_path / "log.jsonl", lines))
    assert log["loss"].iterations.tolist() == [10, 20, 30, 50]
    assert (log["loss"].values > 100).tolist() == [False, False, True, True]
    assert "mAP" not in log  # of a state that was given up


def test_mmcv_by_epochs_counts_on(by_epoch):
    log = read_log(by_epoch)
    assert log["loss"].iterations.tolist() == list(range(50, 500, 50))
    assert log["loss"].epochs == pytest.approx(np.arange(50, 500, 50) / 150)
    assert log["loss"].values.tolist()[:4] == [150, 200, 250, 250]
    assert log["NuScenes/mAP"].iterations.tolist() == [150, 300, 450]
    assert (log["lr"].values.max(), log["val/lr"].values.max()) == (2e-4, 1e-4)


def test_mmcv_by_iterations(tmp_path):
    lines = [{"env_info": ""}, *(mmcv_line(1 + (i - 1) // 100, i, 1.0) for i in range(20, 301, 20))]
    log = read_log(write_log(tmp_path / "a.log.json", lines))
    assert log["loss"].iterations.tolist() == list(range(20, 301, 20))
    assert log["loss"].epochs[-1] == pytest.approx(3)


def test_one_epoch_of_mmcv_does_not_tell_its_length(tmp_path):
    path = write_log(tmp_path / "a.log.json", [{}, mmcv_line(1, 50, 3.0), mmcv_line(1, 100, 2.0)])
    assert read_curves([path], ["loss"], "iteration", 0)[0].x.tolist() == [50, 100]
    with pytest.raises(StreampetrError, match="--x epoch: run .* does not tell the epochs of loss"):
        read_curves([path], ["loss"], "epoch", 0)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.floats(0, 0.99))
def test_smoothing_is_an_exponential_mean(values, weight):
    for index, value in enumerate(smooth(np.array(values), weight)):
        weights = weight ** np.arange(index, -1, -1.0)
        assert value == pytest.approx(np.average(values[: index + 1], weights=weights), abs=1e-6)


def test_smoothing_leaves_out_what_is_not_finite():
    smoothed = smooth(np.array([1.0, np.nan, 3.0]), 0.5)
    assert np.isnan(smoothed[1]) and smoothed[2] == pytest.approx((0.5 * 1 + 3) / 1.5)


def test_runs_and_keys_come_together(ours, by_epoch):
    curves = read_curves([ours, by_epoch], ["loss*", "lr", "loss"], "iteration", 0.5)
    assert [(curve.run, curve.key) for curve in curves] == [
        ("r50", "loss"),
        ("v99", "loss"),
        ("r50", "loss_cls"),
        ("v99", "lr"),
    ]
    for curve in curves:
        assert (np.diff(curve.x) > 0).all()
        assert len(curve.x) == len(curve.raw) == len(curve.y)
        assert curve.y == pytest.approx(smooth(curve.raw, 0.5))


def test_a_key_with_brackets_is_meant_as_it_is_written(tmp_path):
    path = write_log(tmp_path / "log.jsonl", [{"step": 1, "loss[0]": 1.0, "loss0": 2.0}])
    assert [curve.key for curve in read_curves([path], ["loss[0]"], "iteration", 0)][0] == "loss[0]"


def test_runs_have_the_shortest_names_that_tell_them_apart(tmp_path):
    def names(*paths):
        return run_names([tmp_path / path for path in paths])

    assert names("a/log.jsonl", "b/log.jsonl") == ["a", "b"]
    assert names("a/1.log.json", "a/2.log.json") == ["1", "2"]
    assert names("a/1.log.json", "a/2.log.json", "b/1.log.json") == ["a/1", "a/2", "b/1"]
    assert names("x/a/1.json", "y/a/1.json") == [str(tmp_path / "x/a/1.json"), str(tmp_path / "y/a/1.json")]


def test_an_unknown_key_lists_those_there_are(ours):
    with pytest.raises(StreampetrError, match=r"--keys lss\*: no log has it; there are: loss, loss_cls"):
        read_curves([ours], ["lss*"], "iteration", 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 30, "loss"', r"log.jsonl, line 4: is no JSON object \("),
        ("[1, 2]", "log.jsonl, line 4: is no JSON object"),
        ('{"loss": 1.0}', "log.jsonl, line 4: has no number as 'step'"),
        ('{"step": "a", "loss": 1.0}', "log.jsonl, line 4: has no number as 'step'"),
        ('{"step": 3, "epoch": "one"}', "log.jsonl, line 4: has an 'epoch' that is no number: 'one'"),
        ('{"mode": "train", "epoch": 1}', "log.jsonl, line 2: lacks 'mode'"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = write_log(tmp_path / "log.jsonl", [HEADER, *own_lines([10, 20])])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(StreampetrError, match=message):
        read_log(path)


def test_logs_without_a_number_and_without_a_file(tmp_path):
    with pytest.raises(StreampetrError, match="no line of this log holds a number"):
        read_log(write_log(tmp_path / "log.jsonl", [HEADER]))
    with pytest.raises(StreampetrError, match="absent.jsonl: cannot be read"):
        read_log(tmp_path / "absent.jsonl")


def test_the_figure_holds_the_curves_by_name(ours, by_epoch):
    curves = read_curves([ours, by_epoch], ["loss", "loss_cls"], "iteration", 0.9)
    (panel,) = plot_curves(curves, "iteration", "title", separate=False, logarithmic=True).axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["r50: loss", "v99: loss", "r50: loss_cls"]
    shown = {line.get_label(): line for line in panel.lines}
    assert np.array_equal(shown["v99: loss"].get_xydata(), np.c_[curves[1].x, curves[1].y])
    assert len({line.get_color() for line in panel.lines}) == 3
    assert (panel.get_xlabel(), panel.get_yscale()) == ("iteration", "log")


def test_a_panel_for_each_key(ours, by_epoch):
    curves = read_curves([ours, by_epoch], ["loss", "loss_cls", "lr"], "epoch", 0)
    figure = plot_curves(curves, "epoch", "title", separate=True, logarithmic=False)
    assert [panel.get_ylabel() for panel in figure.axes if panel.get_visible()] == ["loss", "loss_cls", "lr"]
    assert [len(panel.lines) for panel in figure.axes] == [2, 1, 1, 0]


def run(*arguments):
    parser = argparse.ArgumentParser()
    plot.add_arguments(parser)
    plot.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize("name", ["curves.png", "new/curves.svg"])
def test_the_command_writes_a_figure(ours, by_epoch, tmp_path, capsys, name):
    run(ours, by_epoch, "--keys", "loss", "lr", "--smooth", "0.9", "--out", tmp_path / name)
    assert "3 curves" in capsys.readouterr().out
    assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--smooth", "1"], "--smooth 1: give a weight from 0 to below 1"),
        (["--out", "curves.docx"], "--out curves.docx: no figure ends like this; choose among .*png"),
        (["--out", "/dev/null/curves.png"], "--out /dev/null/curves.png: cannot be written"),
        (["--metrics"], "metrics_summary.json: cannot be read"),
    ],
)
def test_unfitting_arguments_are_named(ours, arguments, message):
    with pytest.raises(StreampetrError, match=message):
        run(ours, *arguments)


@pytest.fixture(scope="module")
def metrics_folder(tmp_path_factory):
    """Return what the devkit writes for the truth as its own prediction, every other car left out."""
    folder = tmp_path_factory.mktemp("metrics")
    write_world(folder / "world", WorldOptions(scenes=2, samples=3, seed=1, width=128, height=72, version="v1.0-mini"))
    tables = NuScenes("v1.0-mini", str(folder / "world"), verbose=False)
    rows = {sample["token"]: [] for sample in tables.sample}
    cars = 0
    for annotation in tables.sample_annotation:
        name = category_to_detection_name(annotation["category_name"])
        cars += name == "car"
        if annotation["num_lidar_pts"] and (name != "car" or cars % 2):
            row = {key: annotation[key] for key in ("sample_token", "translation", "size", "rotation")}
            row |= {"velocity": [0.0, 0.0], "detection_name": name, "detection_score": 0.5, "attribute_name": ""}
            rows[annotation["sample_token"]].append(row)
    (folder / "results.json").write_text(json.dumps({"meta": {}, "results": rows}))
    config = config_factory("detection_cvpr_2019")
    results, out = str(folder / "results.json"), str(folder / "out")
    DetectionEval(tables, config, results, "mini_val", out, verbose=False).main(0, render_curves=False)
    return folder / "out"


def test_metrics_are_those_of_the_devkit(metrics_folder):
    metrics = read_metrics(metrics_folder)
    summary = json.loads((metrics_folder / "metrics_summary.json").read_text())
    assert metrics.mean_average_precision == pytest.approx(summary["mean_ap"])
    assert metrics.detection_score == pytest.approx(summary["nd_score"])
    for item in metrics.classes:
        assert item.mean_average_precision == pytest.approx(summary["mean_dist_aps"][item.name])
        assert [curve.distance for curve in item.curves] == [0.5, 1, 2, 4]
        for curve in item.curves:
            assert curve.average_precision == summary["label_aps"][item.name][str(curve.distance)]
            assert (np.diff(curve.recall) > 0).all()
    by_name = {item.name: item for item in metrics.classes}
    assert np.isnan(by_name["traffic_cone"].errors["orient_err"])
    strict = by_name["car"].curves[0]
    assert strict.recall[-1] < 0.9 and (strict.precision == 1).all()  # cut where half the cars are missing
    assert by_name["truck"].curves[0].recall[-1] == 1


def test_figures_of_metrics_show_them(metrics_folder):
    metrics = read_metrics(metrics_folder)
    bars, table = plot_average_precision(metrics, "title").axes
    names = [label.get_text() for label in bars.get_yticklabels()]
    widths = {(names[i], j): bar.get_width() for j, group in enumerate(bars.containers) for i, bar in enumerate(group)}
    for item in metrics.classes:
        for index, curve in enumerate(item.curves):
            assert widths[item.name.replace("_", " "), index] == curve.average_precision
    texts = [text.get_text() for text in table.texts]
    assert len(texts) == 50 and texts.count("-") == 5
    panels = plot_precision_recall(metrics, "title").axes
    assert [panel.get_title().split("   ")[0].replace(" ", "_") for panel in panels] == [
        item.name for item in metrics.classes
    ]
    for panel, item in zip(panels, metrics.classes, strict=True):
        for line, curve in zip(panel.lines, item.curves, strict=True):
            assert np.array_equal(line.get_xydata(), np.c_[curve.recall, curve.precision])


def test_the_command_writes_both_figures(metrics_folder, tmp_path):
    run(metrics_folder, "--metrics", "--out", tmp_path / "figures")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "figures").iterdir()}
    assert set(sizes) == {"ap_per_class.png", "precision_recall.png"} and min(sizes.values()) > 20000
    with pytest.raises(StreampetrError, match="--metrics takes one folder, not 2"):
        run(metrics_folder, metrics_folder, "--metrics")


@pytest.mark.parametrize("content", ["{", "[]", '{"label_aps": {}}', '{"car:0.5": {"recall": []}}'])
@pytest.mark.parametrize("name", ["metrics_summary.json", "metrics_details.json"])
def test_broken_metrics_are_named(metrics_folder, tmp_path, name, content):
    shutil.copytree(metrics_folder, tmp_path / "out")
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(StreampetrError, match=f"{name}: not what nuscenes-devkit's detection evaluation writes"):
        read_metrics(tmp_path / "out")
