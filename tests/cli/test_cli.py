"""The front door: quick help, no heavy imports, and a mistyped word answered with the nearest valid one."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from surgdino.cli.compose import compose
from surgdino.cli.configured import RENAMED
from surgdino.cli.help import commented, common
from surgdino.cli.main import CONFIGURED, VERBS, main
from surgdino.config import flat_keys


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "surgdino.cli", *words], capture_output=True, text=True, timeout=100)


def test_help_answers_in_half_a_second_without_torch():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # other processes may be in the way
    assert done.returncode == 0
    assert seconds < 0.5, f"surgdino --help took {seconds:.2f} s of a processor"
    for verb in VERBS:
        assert verb in done.stdout
    probe = (
        "import sys; from surgdino.cli.main import main; main(['--help']); print({'torch', 'hydra'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout
    assert loaded.endswith("set()\n")


@pytest.mark.quick("pretrain")
@pytest.mark.parametrize("verb", CONFIGURED)
def test_every_verb_lists_its_settings_without_torch(verb):
    done = run(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "Common settings" in done.stdout


@pytest.mark.quick("pretrain")
@pytest.mark.parametrize("verb", CONFIGURED)
def test_help_explains_the_settings_that_a_verb_names_and_lists_all(verb, capsys):
    assert main([verb, "--help"]) == 0
    short = capsys.readouterr().out
    assert main([verb, "--help", "all"]) == 0
    whole = capsys.readouterr().out
    named = common(verb)
    assert named
    for key in named:
        assert re.search(rf"^  {re.escape(key)} = \S.*(   ?\S|\n {{20,}}\S|$)", short, re.MULTILINE), key
    unexplained = [
        key for key in named if not re.search(rf"^  {re.escape(key)} = .*?(?:  +\S|\n {{20,}}\S)", short, re.M)
    ]
    assert len(unexplained) <= 3, unexplained  # seed, lr: what needs no words
    composed = flat_keys(OmegaConf.to_container(compose(verb)) | {"dataset": None})
    assert {key for key in composed if "." in key and not key.startswith("augment")} <= set(
        re.findall(r"^  (\S+) =", whole, re.M)
    )


def test_help_shows_what_the_choices_make(capsys):
    assert main(["pretrain", "recipe=demo", "--help"]) == 0
    told = capsys.readouterr().out
    assert "recipe = demo" in told
    assert "model = vit_toy" in told


def test_comments_are_read_with_the_lines_that_go_on():
    text = "a:\n  b: 1           # one,\n                 # and more\n  # a heading\n  c: 'x # y'  # two\n"
    text += '"on": cpu  # three\nd: e#f\n'
    assert commented(text, "p") == {"p.a.b": "one, and more", "p.a.c": "two", "p.on": "three"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrian"], "'pretrain'"),
        (["pretrain", "data.root=x", "train.stesp=3"], "'train.steps'"),
        (["pretrain", "data.root=x", "trian.steps=3"], "'train.steps'"),
        (["pretrain", "data.root=x", "modle=vit_toy"], "'model'"),
        (["pretrain", "data.root=x", "model=vit_tyny_patch16"], "'vit_tiny_patch16'"),
        (["pretrain", "data.root=x", "recipe=colec80"], "'cholec80'"),
        (["pretrain", "data.root=x", "dataset=cholec81"], "'cholec80'"),
        (["pretrain", "data.root"], "key=value"),
        (["pretrain"], "data.root is not set"),
        (["show", "agument"], "'augment'"),
        (["show"], "augment"),
        (["evaluate", "recipe=cholec80"], "surgdino evaluate takes no recipe="),
    ],
)
def test_a_mistyped_word_gets_one_line_with_the_nearest_valid_one(words, said, capsys):
    assert main(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.quick("nan", "lr", "-1", "--train", "=5")
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.steps=many", "train.steps"),
        ("train.batch_size=0", "train.batch_size"),
        ("train.lr=fast", "train.lr"),
        ("data.fps=-1", "data.fps"),
        ("crops.global_scale=0.5", "crops.global_scale"),
        ("data.decoder=ffmpeg", "pyav or decord"),
        ("hardware.device=tpu", "auto or cpu or cuda"),
        ("train.lr=nan", "train.lr"),
        ("train.lr=-1", "train.lr"),
        ("train.lr=1e999", "train.lr"),
        ("train.lr=null", "train.lr"),
        ("train.lr=", "train.lr"),
        ("train.lr=${nowhere}", "train.lr"),
        ("train.lr=" + "9" * 5000, "train.lr"),
        ("train.steps=1" + "0" * 30, "train.steps"),
        ("train=null", "train cannot be used"),
        ("data.workers=-3", "data.workers"),
        ("data.fps=inf", "data.fps"),
        ("data.root=", "data.root"),
        ("run.dir=", "run.dir"),
        ("data.root=" + "x" * 5000, "too long"),
        ("data.split=" + "{a: " * 500 + "1" + "}" * 500, "no split"),
        ("crops.global_size=800000", "crops.global_size"),
        ("method.eps=0", "method.eps"),
        ("method=null", "no method=null"),
        ("dataset=../../etc", "no dataset=../../etc"),
        ("augment.transforms.smoke.p=nan", "augment.transforms.smoke.p"),
        ("--train.steps=5", "--train.steps"),
        ("=5", "'=5'"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_key(setting, said, capsys, synthetic_cholec80, tmp_path):
    words = ["pretrain", "recipe=demo", f"data.root={synthetic_cholec80}", f"run.dir={tmp_path / 'run'}", setting]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists(), "refused before the work begins"


@pytest.mark.parametrize("name", ["OR 3 (left), März=x", "it's [here]", "a,b", "Übung", "back\\slash"])
def test_folders_with_any_name_are_found(name, capsys, tmp_path):
    (tmp_path / name).mkdir()
    code = main(["verify", "dataset=folder", f"data.root={tmp_path / name}"])
    said = capsys.readouterr()
    assert "is not a setting" not in said.err
    assert code in (1, 2)  # found, and empty
    assert "does not exist" not in said.err + said.out


def test_a_missing_folder_is_one_line(capsys, tmp_path):
    assert main(["verify", "dataset=cholec80", f"data.root={tmp_path / 'nowhere'}"]) == 2
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert told.count("\n") == 1


def test_the_last_of_two_words_counts_and_short_forms_are_known(capsys):
    words = ["data.split={train: [1]}", "data.split={test: [2]}", "exclude=test-of:cholect50/rdv", "--cfg", "job"]
    assert main(["pretrain", "data.root=/x", *words]) == 0
    told = capsys.readouterr().out
    assert "test:" in told
    assert "train: [1]" not in told
    assert "exclude: test-of:cholect50/rdv" in told
    assert main(["finetune", "data.root=/x", "organ=liver", "--cfg", "job"]) == 0
    assert "organ: liver" in capsys.readouterr().out


def test_a_renamed_setting_is_taken_with_a_line_that_says_its_new_name(capsys, monkeypatch):
    monkeypatch.setitem(RENAMED, "train.iterations", "train.steps")
    assert main(["pretrain", "data.root=/x", "train.iterations=7", "--cfg", "job"]) == 0
    told = capsys.readouterr().out
    assert "! train.iterations is now called train.steps" in told
    assert "steps: 7" in told


@pytest.mark.parametrize("word", ["resamples=20", "seed=3"])
def test_a_setting_that_is_no_more_is_taken_with_a_line(word, capsys):
    assert main(["score", "task=phase", "truth=none", "predictions=none", word]) == 2
    assert f"! {word.partition('=')[0]} is left out: intervals" in capsys.readouterr().out


def test_cards_recipes_and_methods_of_an_extension_are_choices(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(tmp_path))
    texts = {"configs/method": "name: toy", "datasets": "name: ours", "recipes": "train: {lr: 3.0}"}
    for folder, text in texts.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "toy.yaml").write_text(text)
    assert main(["pretrain", "data.root=/x", "method=toy", "dataset=toy", "recipe=toy", "--cfg", "job"]) == 0
    told = capsys.readouterr().out
    assert all(part in told for part in ("name: toy", "name: ours", "lr: 3.0"))
    assert main(["pretrain", "data.root=/x", "method=toi"]) == 2
    assert "'toy'" in capsys.readouterr().err


def test_a_verb_ignores_what_a_recipe_chooses_for_others(capsys, synthetic_cholec80):
    assert main(["verify", "recipe=cholec80", f"data.root={synthetic_cholec80}"]) == 0
    assert "no errors" in capsys.readouterr().out
