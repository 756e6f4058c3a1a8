"""Chain files: what they mean, what is refused and how, the plan of a dry run, and the shipped ones."""

from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from kogpt2_gluon.chain.chain_file import find_chain, load_chain
from kogpt2_gluon.chain.planning import WAITS, Standing, check_chain
from kogpt2_gluon.chain.stages import arguments_of, overrides_of, recipe_of
from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import load_recipe
from tests.helpers import ROOT

SHIPPED = sorted((ROOT / "recipes" / "chains").glob("*.yaml"))


def written(tmp_path, text):
    path = tmp_path / "chain.yaml"
    path.write_text(text, encoding="utf-8")
    return path


TWO = """
stages:
  first: {train: demo, settings: {training.num_steps: 3, data: {train: [a, b], test: t}}}
  second:
    train: demo
    settings: {training.init_from: "{first}", training.learning_rate: 1e-3, data.train: {"a{first}": 2}}
"""


def test_a_chain_means_commands(tmp_path):
    chain = load_chain(str(written(tmp_path, TWO)), ["second.training.seed=3"], tmp_path / "out")
    assert [stage.references for stage in chain.stages] == [[], ["first"]]
    assert chain.dependents("first") == ["first", "second"]
    first, second = (arguments_of(chain, stage) for stage in chain.stages)
    assert first[:2] == second[:2] == ["train", "demo"]
    assert 'data.train=["a", "b"]' in first and f"tracking.run_dir={tmp_path / 'out' / 'first'}" in first
    best = tmp_path / "out" / "first" / "best"
    assert f"training.init_from={best}" in second and "training.learning_rate=1e-3" in second
    assert f'data.train={{"a{best}": 2}}' in second and "training.seed=3" in second
    recipe = load_recipe("demo", second[2:])
    assert recipe.training.learning_rate == 1e-3 and recipe.data.train == {f"a{best}": 2.0}
    assert chain.folder == tmp_path / "out"
    assert load_chain(str(tmp_path / "chain.yaml")).folder.as_posix() == "runs/chain"


def test_a_reference_is_the_best_checkpoint_or_the_newest(tmp_path):
    chain = load_chain(str(written(tmp_path, TWO)), [], tmp_path / "out")
    there = tmp_path / "out" / "first" / "checkpoints"
    (there / "step-00000002").mkdir(parents=True)
    assert f"training.init_from={tmp_path / 'out' / 'first'}" in arguments_of(chain, chain.stages[1])
    (there / "best").write_text("step-00000002\n")
    assert f"training.init_from={tmp_path / 'out' / 'first' / 'best'}" in arguments_of(chain, chain.stages[1])


def test_every_kind_of_value_arrives_as_it_was_written(tmp_path):
    prompts = ["x: y", "{", "'", '"']
    settings = {"about": "2024_01", "checkpoint.keep_best": False, "training.beta2": 0.95}
    settings["tracking.sample_prompts"] = prompts
    text = yaml.safe_dump({"stages": {"one": {"train": "demo", "settings": settings}}})
    chain = load_chain(str(written(tmp_path, text)))
    recipe = recipe_of(chain, chain.stages[0])
    assert overrides_of(chain.stages[0])[0] == "about=2024_01"
    assert (recipe.checkpoint.keep_best, recipe.training.beta2) == (False, 0.95)
    assert recipe.about == "2024_01" and recipe.tracking.sample_prompts == prompts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage: {}", "unknown key stage; did you mean stages?"),
        ("stages: []", "stages: expected a mapping"),
        ("name: [x]\nstages: {a: {train: demo}}", "name: expected a text"),
        ("stages: {a: demo}", "stages.a: expected a mapping with one of train, finetune, evaluate"),
        ("stages: {a: {trian: demo}}", "stages.a: names no verb"),
        ("stages: {a: {train: demo, evaluate: x}}", "stages.a: names train and evaluate"),
        ("stages: {a: {train: demo, setings: {}}}", "unknown key setings; did you mean settings?"),
        ("stages: {A: {train: demo}}", "stages.A: a stage's name has"),
        ("stages: {../x: {train: demo}}", "a stage's name has"),
        ("stages: {before-x: {train: demo}}", "a stage's name has"),
        ("stages: {a: {finetune: x, task: nsmc}}", "data is missing: folder of the task's files"),
        ("stages: {a: {finetune: x, task: nsmc, data: d, seeds: 0}}", "seeds"),
        ("stages: {a: {evaluate: x, data: d, settings: {}}}", "unknown key settings"),
        ("stages: {a: {train: demo, settings: {tracking.run_dir: x}}}", "tracking.run_dir: the chain sets it"),
        ("stages: {a: {evaluate: '{b}', data: d}}", "no earlier stage b (it is the first one)"),
        (
            "stages: {first: {train: demo}, a: {train: demo, settings: {training.init_from: '{frist}'}}}",
            "no earlier stage frist; did you mean first?",
        ),
        (
            "stages: {first: {train: demo}, a: {evaluate: '{first}', data: d}, b: {finetune: '{a}', task: t, data: d}}",
            "stages.b: {a}: stage a evaluates, and leaves no network",
        ),
        ("stages: {a: {train: demo}, a: {train: demo}}", "the key a twice"),
        ("stages: {a: {train: !!python/object/apply:os.system ['true']}}", "not readable as YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, text, words):
    with pytest.raises(RecipeError) as caught:
        load_chain(str(written(tmp_path, text)))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("first", "write it as STAGE.KEY=VALUE"),
        ("frist.training.seed=1", "no stage frist; did you mean first?"),
        ("first.train=", "train"),
        ("first.seeds=2", "unknown key seeds"),
    ],
)
def test_overrides_that_mean_nothing_are_refused(tmp_path, override, words):
    with pytest.raises(RecipeError) as caught:
        load_chain(str(written(tmp_path, TWO)), [override])
    assert words in str(caught.value)


def _waiting(chain):
    return {stage.name: Standing(WAITS) for stage in chain.stages}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("second.training.sede=3", "stage second: .*unknown key training.sede; did you mean training.seed?"),
        ("second.model.num_layers=7", "stage second: .*training.init_from={first}: .* (model.num_layers: 3 -> 7)"),
    ],
)
def test_recipes_and_sizes_of_all_stages_are_checked_before_the_first(tmp_path, shards, override, words):
    there = f"{shards / 'train'}, test: {shards / 'test'}"
    text = TWO.replace("[a, b], test: t", there).replace(', data.train: {"a{first}": 2}', "")
    chain = load_chain(str(written(tmp_path, text)), [override, "first.model.max_length=128"], tmp_path / "out")
    with pytest.raises(RecipeError) as caught:
        check_chain(chain, _waiting(chain))
    start, *rest = words.split(".*")
    assert str(caught.value).startswith(start) and all(each in str(caught.value) for each in rest)


def test_a_chain_and_a_stage_that_are_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"no such file, and no shipped chain of that name"):
        find_chain("nowhere")
    with pytest.raises(RecipeError, match="no stage frist; did you mean first"):
        load_chain(str(written(tmp_path, TWO))).stage("frist")


def test_a_dry_run_prints_the_plan_checks_the_data_and_writes_nothing(chain_file, tmp_path):
    done = CliRunner().invoke(cli, ["chain", str(chain_file), "--dry-run", "--run-with", "horovodrun -np 2"])
    assert done.exit_code == 0, done.exception
    lines = done.stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == [f"{name}: waits" for name in ("pretrain", "adapt", "distil", "score", "tune")]
    assert lines[1].startswith("  horovodrun -np 2 kogpt2 train demo ")
    assert any("start              at step 0" in line for line in lines[: lines.index("adapt: waits")])
    assert lines[lines.index("score: waits") + 1].startswith("  kogpt2 evaluate ")
    assert not (tmp_path / "chain").exists()
    missing = ["chain", str(chain_file), "--dry-run", "pretrain.data.train=/nowhere"]
    assert isinstance(CliRunner().invoke(cli, missing).exception, DataError)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_chains_are_whole(path, shards):
    first = [f"pretrain.data.{split}={shards / split}" for split in ("train", "test")]
    chain = load_chain(str(path), first)
    assert chain.name == path.stem
    for word in ("Result", "Time", "Command"):
        assert word in chain.about
    assert list(check_chain(chain, _waiting(chain))) == ["pretrain"]


def test_there_is_a_shipped_chain():
    assert [path.stem for path in SHIPPED] == ["alexatm"]
