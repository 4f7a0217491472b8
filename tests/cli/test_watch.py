"""`critique-rl watch` says what it cannot open."""

import pytest
import yaml

from critique_rl.cli.entry import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "logs to a tracker; train with trl.report_to=trackio"),
        (["--tracker", "wandb"], "logs to wandb; train with trl.report_to=wandb"),
        (["trl.report_to=mlflow"], "got mlflow, expected one to open: trackio, tensorboard, wandb"),
    ],
)
def test_what_it_cannot_open_is_said(words, expected, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    assert main(["watch", "p.yaml", *words]) == 2
    assert expected in capsys.readouterr().err
