"""What the tests of commands share."""

import pytest

from alj.cli import invoke


@pytest.fixture
def alj(capfd, monkeypatch, tmp_path):
    """Run a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))

    def command(*arguments):
        code = invoke([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command
