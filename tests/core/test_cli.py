"""The command `streampetr`: exit codes and one-line errors; and the core's own commands."""

import argparse
import re
from importlib.metadata import EntryPoint

import pytest

from streampetr_core import cli
from streampetr_core.checkpoint import load_checkpoint
from streampetr_core.commands import convert, init
from streampetr_core.errors import StreampetrError


def parsed(command, *argv):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(map(str, argv)))


@pytest.fixture
def core_commands(monkeypatch):
    """Register the core's commands, as installing the package does, and one that cannot be imported."""
    modules = {
        "init": "streampetr_core.commands.init",
        "convert": "streampetr_core.commands.convert",
        "lame": "no_such",
    }
    points = [EntryPoint(name, module, cli.GROUP) for name, module in modules.items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: points if group == cli.GROUP else [])


def test_an_unknown_command_is_bad_usage(capsys):
    assert cli.main(["no-such-command"]) == 2
    assert "no command 'no-such-command'" in capsys.readouterr().err


def test_without_a_command_the_overview_is_bad_usage_and_with_help_it_is_not(capsys):
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out.count("usage: streampetr COMMAND") == 2


def test_the_overview_has_a_line_for_every_command(core_commands, capsys):
    cli.main(["--help"])
    out = capsys.readouterr().out
    assert re.search(r"^  convert +Convert an official StreamPETR checkpoint", out, re.MULTILINE)
    assert re.search(r"^  lame +unavailable: No module named 'no_such'; install", out, re.MULTILINE)


def test_a_command_runs(core_commands, tmp_path, capsys):
    out = tmp_path / "untrained.safetensors"
    assert cli.main(["init", "small_352_256q", str(out)]) == 0
    assert "untrained.safetensors: model small_352_256q" in capsys.readouterr().out
    assert load_checkpoint(out).config.name == "small_352_256q"


def test_bad_input_is_one_line_and_exit_code_1(core_commands, capsys):
    assert cli.main(["convert", "gone.pth", "out.safetensors"]) == 1
    assert capsys.readouterr().err == "streampetr convert: error: gone.pth: no such file\n"
    assert cli.main(["lame"]) == 1
    assert "No module named 'no_such'" in capsys.readouterr().err


def test_bad_arguments_are_exit_code_2(core_commands, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["convert", "--nonsense"])
    assert exit_.value.code == 2
    assert "usage: streampetr convert" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["init", "convert"])
def test_help_shows_an_example(core_commands, command, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    assert f"Example:\n  streampetr {command} " in capsys.readouterr().out


def test_init_depends_on_the_seed_alone(tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        init.run(parsed(init, "small_352_256q", tmp_path / name, "--seed", seed))
    a, b, c = (load_checkpoint(tmp_path / name).state["queries.reference_points"] for name in "abc")
    assert a.equal(b) and not a.equal(c)
    assert "its boxes mean nothing" in capsys.readouterr().out


def test_convert_with_an_unknown_configuration(tmp_path):
    with pytest.raises(StreampetrError, match="no model configuration 'r51'"):
        convert.run(parsed(convert, tmp_path / "x.pth", tmp_path / "y", "--config", "r51"))
