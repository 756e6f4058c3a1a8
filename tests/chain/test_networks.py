"""Networks that a stage may begin with, be taught by, or score: the rules of a run, before anything is trained."""

from __future__ import annotations

import pytest
import yaml

from kogpt2_gluon.chain.chain_file import load_chain
from kogpt2_gluon.chain.networks import check_networks
from kogpt2_gluon.chain.planning import of_stage
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from tests.training.task_helpers import write_task

SMALL = {"model.units": 48, "model.num_heads": 2, "model.num_layers": 2, "model.max_length": 64, "data.seq_length": 32}
SMALL |= {"tracking.sample_prompts": []}
PROMPT = {"training.init_from": "{first}", "adaptation.method": "prompt", "adaptation.prompt_length": 4}
SCALES = {"training.init_from": "{first}", "adaptation.method": "scales"}
TAUGHT = {"distillation.teacher": "{first}"}


def trains(settings, **more):
    return {"train": "demo", "settings": {**SMALL, **settings, **more}}


def tunes(network, settings=None):
    return {"finetune": network, "task": "nsmc", "data": "nsmc", "settings": settings or {}}


def checked(tmp_path, stages):
    """Checks a chain of which nothing is there yet; returns the names of its networks."""
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump({"stages": {"first": trains({}), **stages}}, sort_keys=False))
    chain, known = load_chain(str(path), [], tmp_path / "out"), {}
    for stage in chain.stages:
        with of_stage(stage):
            check_networks(chain, stage, known)
    return list(known)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (
            {"second": trains(TAUGHT, **{"distillation.init_layers": True, "model.units": 32})},
            "stage second: distillation.init_layers: layers of the network of stage first do not fit "
            "(model.units: 48 -> 32)",
        ),
        (
            {"second": trains(TAUGHT, **{"distillation.init_layers": True, "model.num_layers": 3})},
            "(model.num_layers: 2 -> 3, which is more)",
        ),
        (
            {"second": trains(TAUGHT, **{"distillation.init_layers": True, "model.activation": "gelu_tanh"})},
            "(model.activation: gelu -> gelu_tanh)",
        ),
        (
            {"second": trains(TAUGHT, **{"model.max_length": 128, "data.seq_length": 128})},
            "distillation.teacher={first}: the network of stage first has 64 positions, and data.seq_length=128",
        ),
        ({"second": trains(TAUGHT, **{"model.vocab_size": 300})}, "and model.vocab_size is 300"),
        (
            {"second": trains({"training.init_from": "{first}", "model.max_length": 128})},
            "(model.max_length: 64 -> 128); take its sizes, or say how to make more rows with training.init_positions",
        ),
        (
            {"second": trains({"training.init_from": "{first}", "model.vocab_size": 60_000})},
            "say how to make more rows with training.init_vocabulary",
        ),
        (
            {"second": trains(PROMPT), "third": trains({"training.init_from": "{second}"})},
            "stage third: training.init_from={second}: the network of stage second is a network with a tuned prompt, "
            "which would be lost; begin with the network that it was tuned on, {first}",
        ),
        (
            {"second": trains(PROMPT), "third": trains({"distillation.teacher": "{second}"})},
            "the network of stage second has a tuned prompt, and a teacher is a network without one; name the network "
            "that it was tuned on, {first}, or leave the prompt out: kogpt2 convert {second} OUT --to checkpoint",
        ),
        ({"second": trains(PROMPT), "third": tunes("{second}")}, "is a network with a tuned prompt"),
        (
            {"second": trains(SCALES), "third": trains(SCALES, **{"training.init_from": "{second}"})},
            "quantised already",
        ),
        ({"second": tunes("{first}"), "third": trains({"distillation.teacher": "{second}"})}, "fine-tuned for a task"),
        (
            {"second": tunes("{first}"), "third": {"evaluate": "{second}", "data": "d"}},
            "stage third: evaluate={second}: the network of stage second is fine-tuned for a task",
        ),
        (
            {"second": tunes("{first}"), "third": trains({"training.init_from": "{second}", "model.units": 96})},
            "(model.units: 48 -> 96)",
        ),
        ({"second": tunes("{first}", {"data.seq_length": 65})}, "data.seq_length=65 is above model.max_length=64"),
        ({"second": tunes("{first}", {"training.init_from": "x"})}, "training.init_from is CHECKPOINT here"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_there(tmp_path, stages, words):
    with pytest.raises(RecipeError) as caught:
        checked(tmp_path, stages)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_fits_is_taken(tmp_path):
    larger = {"training.init_from": "{first}", "model.max_length": 128, "training.init_positions": "repeat"}
    student = {**TAUGHT, "distillation.init_layers": True, "model.num_layers": 1, "model.max_length": 32}
    stages = {
        "longer": trains(larger),
        "student": trains(student),
        "narrow": trains(TAUGHT, **{"model.units": 32}),
        "scaled": trains({**SCALES, "training.init_from": "{longer}", "model.max_length": 128}),
        "tune": tunes("{scaled}"),
        "again": trains({"training.init_from": "{tune}", "model.max_length": 128}),
        "score": {"evaluate": "{again}", "data": "d"},
    }
    assert checked(tmp_path, stages) == ["first", "longer", "student", "narrow", "scaled", "tune", "again"]


def test_a_network_outside_of_the_chain_is_opened_before_the_first_stage(tmp_path, checkpoint):
    sizes = {f"model.{key}": value for key, value in vars(checkpoint.recipe().model).items()}
    own = {**sizes, "data.seq_length": 8, "tracking.sample_prompts": [], "training.init_from": str(checkpoint.path)}
    assert checked(tmp_path, {"second": {"train": "demo", "settings": own}}) == ["first", "second"]
    with pytest.raises(RecipeError, match=rf"stage second: .*{checkpoint.path} is of another network"):
        checked(tmp_path, {"second": {"train": "demo", "settings": {**own, "model.num_layers": 7}}})
    for settings in ({"training.init_from": "/nowhere"}, {"distillation.teacher": "/nowhere"}):
        with pytest.raises(KoGPT2Error, match=r"stage second: \S+=/nowhere: /nowhere: no checkpoint there"):
            checked(tmp_path, {"second": trains(settings)})
    task = write_task(tmp_path / "task")
    with pytest.raises(DataError, match=r"stage second: finetune=/nowhere: "):
        checked(tmp_path, {"second": {"finetune": "/nowhere", "task": str(task), "data": str(task.parent)}})
