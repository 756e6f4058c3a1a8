"""Recipes: reading, overriding, checking, printing."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.estimate import flops_per_token, size_of
from kogpt2_gluon.recipe import Recipe, known_keys, load_recipe, parse_recipe
from kogpt2_gluon.recipe_sections import DataRecipe
from kogpt2_gluon.training.dry_run import describe
from tests.helpers import ROOT

SHIPPED = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_whole(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    for word in ("Result", "Time", "Command"):
        assert word in recipe.about
    assert recipe.accumulate(1) >= 1
    assert f"{size_of(recipe).parameters:,}" in describe(recipe)


def test_memory_by_precision():
    """float16: 2 + 2 bytes a parameter, its master and two moments 12; bfloat16 is in the products only."""
    precisions = ("float32", "bfloat16", "float16")
    sizes = {p: size_of(load_recipe("kogpt2_base", [f"training.precision={p}"])) for p in precisions}
    float32, float16 = sizes["float32"], sizes["float16"]
    assert sizes["bfloat16"] == float32
    assert float32.weights + float32.gradients + float32.optimizer == 16 * float32.parameters
    assert float16.weights + float16.gradients == 4 * float16.parameters
    assert float16.optimizer == 12 * float16.parameters
    assert float32.activations / 2 < float16.activations < float32.activations  # the loss is float32
    assert float16.checkpoint == float32.checkpoint


def test_every_shipped_recipe_is_listed_here():
    wanted = {"demo", "debug_cpu", "small_cpu", "single_gpu", "kogpt2_base", "kogpt2_medium"}
    wanted |= {"finetune", "kogpt2_subtasks", "lmkor", "reviews_hour", "adapt"}
    assert set(SHIPPED) == wanted


def test_overrides_and_numbers():
    recipe = parse_recipe(
        {"training": {"learning_rate": "1e-4"}},
        [
            "training.epsilon=1e-8",
            "model.units=96",
            "model.num_heads=6",
            "data.test=",
            "tracking.sample_prompts=[가, 나]",
        ],
    )
    assert (recipe.training.learning_rate, recipe.training.epsilon) == (1e-4, 1e-8)
    assert recipe.data.test == "" and recipe.tracking.sample_prompts == ["가", "나"]


@pytest.mark.parametrize(
    ("text", "value", "sets", "weights"),
    [
        ("shards/2024_01_05", "shards/2024_01_05", ["shards/2024_01_05"], None),
        ("2024_01_05", "2024_01_05", ["2024_01_05"], None),
        ("", "", [], None),
        ("[a/train, 2024_01_05]", ["a/train", "2024_01_05"], ["a/train", "2024_01_05"], None),
        ("{a/train: 7, b/train: 3}", {"a/train": 7.0, "b/train": 3.0}, ["a/train", "b/train"], [0.7, 0.3]),
        ("{1: 1e-1, 말뭉치: 0.3}", {"1": 0.1, "말뭉치": 0.3}, ["1", "말뭉치"], [0.25, 0.75]),  # 말뭉치: a corpus
        ("{a: 1e308, b: 1e308}", {"a": 1e308, "b": 1e308}, ["a", "b"], [0.5, 0.5]),
    ],
)
def test_training_data_is_a_path_a_list_or_weights(tmp_path, text, value, sets, weights):
    recipe = load_recipe("demo", [f"data.train={text}"])
    assert recipe.data.train == value and recipe.data.train_sets == sets
    assert recipe.data.train_weights == (pytest.approx(weights) if weights else None)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.yaml")) == recipe


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{a: 0}", "the weight of a is 0; weights are above 0"),
        ("{a: -1}", "the weight of a is -1"),
        ("{a: 1, b: much}", "data.train: the weight of b: expected a number, got 'much'"),
        ("{a: .inf}", "expected a number"),
        ("{a: [1]}", "expected a number"),
        ("{a: }", "the weight of a: expected a number, got ''"),
        ("{b/train:8, c: 1}", "b/train:8: a space is missing after the colon: b/train: 8"),
        ("{a: 1, b: 2, a: 3}", "the key a twice"),
        ("[]", "expected paths as texts, got []"),
        ("[[a]]", "expected paths as texts"),
        ("[a, a]", "names a path twice"),
        ("{a: 1", "is not YAML"),
    ],
)
def test_training_data_that_is_neither(text, part):
    with pytest.raises(RecipeError, match=r".*") as caught:
        load_recipe("demo", [f"data.train={text}"])
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_weights_are_for_shards():
    with pytest.raises(RecipeError, match=r"data\.train: weights need shards"):
        load_recipe("demo", ["data.train={a: 1, b: 2}", "data.source=text"])


@pytest.mark.parametrize(
    "option", ["tokenizer=t.model", "documents=text", "refresh=epoch", "bpe_dropout=0.1", "encoding=cp949"]
)
def test_options_of_text_do_not_go_unheard(option):
    key, _, value = option.partition("=")
    with pytest.raises(RecipeError, match=rf"data\.{key}={value} needs data.source=text"):
        load_recipe("demo", [f"data.{option}"])
    assert str(getattr(load_recipe("demo", [f"data.{option}", "data.source=text"]).data, key)) == value


@pytest.mark.parametrize("option", ["cache=full", "cache=window"])
def test_options_of_shards_do_not_go_unheard(option):
    with pytest.raises(RecipeError, match=rf"data\.{option} needs data.source=shards"):
        load_recipe("demo", [f"data.{option}", "data.cache_dir=/nvme", "data.source=text"])
    load_recipe("demo", [f"data.{option}", "data.cache_dir=/nvme"])


@pytest.mark.parametrize("option", ["source=text", "window=3", "max_lanes=8", "corrupt=skip", "cache_gib=7"])
def test_options_of_corpora_do_not_go_unheard_with_a_task(option):
    with pytest.raises(RecipeError, match=rf"data\.{option.split('=')[0]} and task\.name are both set"):
        load_recipe("finetune", [f"data.{option}"])
    load_recipe("demo", [f"data.{option}"])


def test_help_names_every_kind_of_training_data():
    helps = {entry.name: entry.metadata["help"] for entry in dataclasses.fields(DataRecipe)}
    assert all(words in helps["documents"] for words in ("kogpt2 clean --help", "FIELD", "field:NAME"))
    assert all(kind in helps["train"] for kind in ("shards", "list", "weight", "text", "s3://"))


@pytest.mark.parametrize("change", ["bpe_dropout=0.2", "documents=blank-line", "refresh=epoch", "source=shards"])
def test_fingerprint_follows_how_text_is_read(change):
    def fingerprint(*overrides):
        return load_recipe("demo", [f"data.{each}" for each in overrides]).fingerprint()

    assert fingerprint("source=text", change) != fingerprint("source=text")
    assert fingerprint("source=text", "tokenizer=elsewhere/t.model", "train=b") == fingerprint("source=text")


def test_fingerprint_knows_weights_not_paths():
    def fingerprint(train):
        return load_recipe("demo", [f"data.train={train}"]).fingerprint()

    assert fingerprint("{a: 7, b: 3}") == fingerprint("{c: 14, d: 6}") != fingerprint("{a: 6, b: 4}")
    assert fingerprint("[a, b]") == fingerprint("c")


def test_printed_recipe_reads_back(tmp_path):
    recipe = load_recipe("kogpt2_base", ["tracking.run_dir=어딘가"])
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.yaml")) == recipe


def test_all_faults_are_listed_at_once():
    with pytest.raises(RecipeError) as caught:
        parse_recipe(
            {"modle": {}, "model": {"unit": 3, "dropout": 2}, "training": {"num_steps": 1.5, "optimizer": "sgd"}},
            ["novalue", "evaluation.interval=-1"],
        )
    text = str(caught.value)
    for part in (
        "7 faults",
        "unknown key modle; did you mean model?",
        "unknown key model.unit; did you mean model.units?",
        "model.dropout: 2.0 is above 0.99",
        "training.num_steps: expected a whole number, got 1.5",
        "'sgd' is none of bertadam, adamw, adam, lamb",
        "override 'novalue'",
        "evaluation.interval: -1 is below 0",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    "overrides, part",
    [
        (["model.num_heads=7"], "model.units=768 is not divisible by model.num_heads=7"),
        (["data.seq_length=2048"], "data.seq_length=2048 is above model.max_length=1024"),
        (["training.final_learning_rate=1"], "final_learning_rate is above"),
        (["training.beta2=1"], "training.beta2 must be below 1"),
        (["training.precision=fp16"], "training.precision: 'fp16' is none of float32, bfloat16, float16"),
        (["training.ops=fast"], "training.ops: 'fast' is none of auto, fused, stock"),
        (["training.precision=bfloat16", "training.ops=stock"], "bfloat16 needs the fused operators, and training.ops"),
        (["training.seed=yes"], "expected a whole number, got True"),
        (["training.learning_rate=.nan"], "expected a number, got .nan"),
        (["model=3"], "model: expected a section"),
        (["tracking.tensorboard=1"], "expected true or false"),
        (["tracking.sample_prompts=가"], "expected a list of texts"),
    ],
)
def test_single_faults_are_one_line(overrides, part):
    with pytest.raises(RecipeError, match=r".*") as caught:
        load_recipe("kogpt2_base", overrides)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("trainin.num_steps=3", "unknown key trainin.num_steps; did you mean training.num_steps?"),
        ("name.x=3", "unknown key name.x"),
        ("trainin=3", "unknown key trainin; did you mean training?"),
    ],
)
def test_a_wrong_section_of_the_command_line_is_not_laid_on_the_file(override, part):
    with pytest.raises(RecipeError) as caught:
        load_recipe("debug_cpu", [override])
    assert part in str(caught.value) and str(caught.value).endswith(" (on the command line)")
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"trainin": {"seed": 1}}, ["trainin.num_steps=3"])
    assert "unknown key trainin; did you mean training?\n" in str(caught.value) + "\n"  # this one is the file's


def test_a_fault_of_the_file_that_only_mentions_a_key_of_the_command_line_is_the_files():
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"training": {"num_step": 3}, "model": {"units": 0}}, ["training.num_steps=5", "model.dropout=2"])
    assert str(caught.value).splitlines() == [
        "recipe: 3 faults:",
        "  unknown key training.num_step; did you mean training.num_steps?",
        "  model.units: 0 is below 1",
        "  model.dropout: 2.0 is above 0.99 (on the command line)",
    ]


def test_a_fault_between_two_keys_is_the_command_lines_if_one_of_them_is():
    for overrides, marked in ((["model.num_heads=7"], True), (["model.units=7"], True), (["model.dropout=0"], False)):
        with pytest.raises(RecipeError) as caught:
            parse_recipe({"model": {"units": 8, "num_heads": 3}}, overrides)
        assert str(caught.value).endswith(" (on the command line)") is marked
    with pytest.raises(RecipeError, match=r"model\.units: .* \(on the command line\)"):
        parse_recipe({}, ["model={units: 0}"])  # a section as a whole


@pytest.mark.parametrize("key", ["data.train", "data.test"])
def test_shards_in_s3_are_to_be_downloaded_first(key):
    with pytest.raises(RecipeError, match=rf"{key}=s3://b/x: .* kogpt2 files download s3://b/x DIR"):
        load_recipe("demo", [f"{key}=s3://b/x"])
    load_recipe("demo", ["data.train=s3://b/x", "data.source=text"])


def test_a_key_given_twice_is_named(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("data: {window: 2}\nmodel: {units: 96}\ndata: {window: 3}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"bad\.yaml.*the key data twice.*line 3") as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "!!python/object/apply:os.system ['true']\n", "3\n"])
def test_files_that_are_no_recipe(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"bad\.yaml") as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)


def test_missing_recipe_lists_the_shipped_ones():
    with pytest.raises(RecipeError, match=r"no such file.*debug_cpu, demo"):
        load_recipe("kogpt3")


def test_batch_that_does_not_divide_names_the_nearest():
    recipe = load_recipe("demo", ["training.total_batch_size=50", "training.batch_size=16"])
    with pytest.raises(RecipeError, match="the nearest that are: 48 or 64"):
        recipe.accumulate(1)
    with pytest.raises(RecipeError, match=r"the nearest that are: 64 \(or fewer workers"):
        recipe.accumulate(4)


def test_fingerprint_follows_what_decides_the_numbers():
    base = load_recipe("demo").fingerprint()
    assert load_recipe("demo", ["tracking.run_dir=x", "training.device=cpu", "data.train=y"]).fingerprint() == base
    assert load_recipe("demo", ["training.seed=1"]).fingerprint() != base
    assert load_recipe("demo", ["data.window=2"]).fingerprint() != base
    assert load_recipe("demo", ["training.ops=stock", "training.threads=3"]).fingerprint() == base
    assert load_recipe("demo", ["training.precision=bfloat16"]).fingerprint() != base


def test_a_recipe_computes_in_float32_unless_it_says_otherwise():
    training = load_recipe("demo").training
    assert (training.precision, training.ops) == ("float32", "auto")
    for ops in ("auto", "fused"):
        chosen = load_recipe("demo", ["training.precision=bfloat16", f"training.ops={ops}"]).training
        assert (chosen.precision, chosen.ops) == ("bfloat16", ops)


def test_every_field_says_what_it_means():
    for section in dataclasses.fields(Recipe):
        inner = getattr(Recipe(), section.name)
        entries = dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else [section]
        assert all(entry.metadata["help"] for entry in entries)
    assert "training.learning_rate" in known_keys()


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=2)
)
KEYS = st.one_of(st.sampled_from([*known_keys(), "model", "training"]), st.text(max_size=6))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, st.one_of(SCALARS, st.dictionaries(KEYS, SCALARS, max_size=3)), max_size=4))
def test_any_mapping_is_a_recipe_or_an_error_for_a_person(plain):
    flat = {key.partition(".")[0]: value for key, value in plain.items()}
    try:
        recipe = parse_recipe(flat)
    except RecipeError:
        return
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_operations_match_a_count_by_hand():
    """One layer, one head of the smallest sizes: every product written out."""
    recipe = parse_recipe(
        {
            "model": {"units": 4, "num_layers": 1, "num_heads": 1, "vocab_size": 10, "max_length": 8},
            "data": {"seq_length": 8},
        }
    )
    products = 4 * 12 + 4 * 4 + 4 * 16 + 16 * 4 + 4 * 10  # qkv, out, hidden, out, logits
    attention = 2 * 8 * 4  # scores and context, each 8 keys x 4
    others = 12 + 4 + 16 + 4 + 4 * 4 + 2 * 4  # biases and LayerNorms, counted as if they were products
    assert flops_per_token(recipe.model, 8) == 6 * (products + attention + others)
