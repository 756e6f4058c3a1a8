"""A new run that begins with the weights of another one: nothing else is taken, and what does not fit is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.tokens.renaming import rename_tokens
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.initial_weights import find_initial_weights, more_pieces, more_positions
from tests.helpers import kogpt2


def evaluations(run_dir: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run_dir) if line["kind"] == "evaluation"]


def test_a_run_begins_with_the_weights_of_another(tiny, tmp_path):
    first, second = tmp_path / "run", tmp_path / "second"
    tiny = [*tiny, "evaluation.max_sequences=0"]  # the first evaluation is over the whole set too, as the last is
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=3")
    there = [*tiny, f"tracking.run_dir={second}", "model.dropout=0", "training.optimizer=adamw", "training.num_steps=3"]
    planned = kogpt2("train", "debug_cpu", *there, "--init-from", first, "--dry-run").stdout
    weights = f"begins with the weights of {first}/checkpoints/step-00000003, as a new run"
    assert weights in planned and "start              at step 0" in planned
    done = kogpt2("train", "debug_cpu", *there, "--init-from", first)
    assert weights in done.stdout
    (_, before), (step, after) = evaluations(first)[-1], evaluations(second)[0]
    assert step == 0 and after == pytest.approx(before, rel=1e-6)
    shutil.rmtree(first)  # from here on the run has its own checkpoints
    again = kogpt2("train", "debug_cpu", *there, "training.num_steps=4", "--init-from", first)
    assert "going on from" in again.stdout and "begins with" not in again.stdout
    assert evaluations(second)[-1][0] == 4


def test_resuming_with_other_data_names_the_way_out(tiny, tmp_path):
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=1")
    told = kogpt2("train", "debug_cpu", *tiny, "training.optimizer=lamb", code=2).stderr
    assert "training.optimizer: " in told and " -> lamb" in told
    assert f"--init-from {tmp_path}/run/checkpoints/step-00000001 and another run_dir" in told


def recipe_for(checkpoint, *overrides: str):
    sizes = [f"model.{key}={value}" for key, value in checkpoint.recipe().to_dict()["model"].items()]
    return load_recipe("debug_cpu", [*sizes, f"training.init_from={checkpoint.path}", *overrides])


def test_other_sizes_are_named(checkpoint):
    with pytest.raises(RecipeError, match=r"\(model\.units: 96 -> 48, model\.num_layers: 3 -> 2\); take its sizes"):
        find_initial_weights(recipe_for(checkpoint, "model.units=48", "model.num_layers=2"), None)
    found = find_initial_weights(recipe_for(checkpoint, "model.dropout=0.5"), None)
    assert found.path == open_checkpoint(checkpoint.path).path


def test_a_renamed_unused_token_changes_no_id(checkpoint, tmp_path):
    recipe, source = recipe_for(checkpoint), Tokenizer.load(checkpoint.tokenizer_path)
    find_initial_weights(recipe, source)
    renamed = rename_tokens(checkpoint.tokenizer_path, [("<unused7>", "리뷰어")], tmp_path / "renamed.model")
    find_initial_weights(recipe, renamed)  # the id had no meaning before


def test_a_renamed_token_begins_as_the_mean_of_its_pieces(checkpoint, tmp_path):
    names = [("<unused7>", "▁연기음악"), ("<unused2>", "음악회의"), ("<unused5>", "음악펭귄")]
    before = Tokenizer.load(checkpoint.tokenizer_path)
    renamed = rename_tokens(before.path, names, tmp_path / "renamed.model")
    found = find_initial_weights(recipe_for(checkpoint, "training.init_renamed=mean"), renamed)
    assert found.notes == [
        "the row of each of 3 renamed tokens begins as the mean of the rows that spelled it before "
        "(training.init_renamed=mean)"
    ]
    arrays, old = found.arrays(), checkpoint.model_arrays()
    pieces = [before.encode(term.strip("▁")) for _, term in names]
    for ids in pieces[1:]:  # no space is part of these names
        if before.pieces[ids[0]] == "▁":
            del ids[0]
    assert [before.decode(ids) for ids in pieces[:2]] == ["연기음악", "음악회의"]
    assert before.unk_id in pieces[2]  # 펭귄 has no pieces
    pieces[2] = [piece for piece in pieces[2] if piece != before.unk_id]
    for name in ("_embed.weight", "_logits_proj.weight"):
        expected = old[name].copy()
        for (_, term), ids in zip(names, pieces):
            expected[renamed.pieces.index(term)] = sum(old[name][each] for each in ids) / len(ids)
        assert np.allclose(arrays[name], expected, atol=1e-6)
        assert (arrays[name] != old[name]).any(axis=1).sum() == 3  # all other rows stay
    found = find_initial_weights(recipe_for(checkpoint), renamed)
    assert "begins as that of an unused token (training.init_renamed=none)" in found.notes[0]
    assert np.array_equal(found.arrays()["_embed.weight"], old["_embed.weight"])


def test_rows_of_renamed_tokens_that_an_adaptation_leaves_are_noted(checkpoint, tmp_path):
    renamed = rename_tokens(checkpoint.tokenizer_path, [("<unused7>", "▁연기음악")], tmp_path / "renamed.model")
    for method, seq_length in (("lora", 64), ("scales", 64), ("prompt", 40)):
        settings = (f"adaptation.method={method}", f"data.seq_length={seq_length}")
        (note,) = find_initial_weights(recipe_for(checkpoint, *settings), renamed).notes
        assert f"and stays so: adaptation.method={method} trains no embedding; training.init_renamed=mean" in note
        settings += ("training.init_renamed=mean",)
        (note,) = find_initial_weights(recipe_for(checkpoint, *settings), renamed).notes
        assert note.endswith(f"and stays so: adaptation.method={method} trains no embedding")


def test_another_tokenizer_is_refused_by_its_first_difference(checkpoint, tmp_path):
    from tests.convert.convert_helpers import OWN_SENTENCES, train

    for size, message in (
        (300, "id [0-9]+ is '.*' in the data's, '.*' in the network's"),
        (380, "has another tokenizer than"),
    ):
        path = tmp_path / f"{size}.model"
        path.write_bytes(train([line[::-1] for line in OWN_SENTENCES] * 20, size))
        with pytest.raises(RecipeError, match=message) as caught:
            find_initial_weights(recipe_for(checkpoint), Tokenizer.load(path))
        assert str(checkpoint.path) in str(caught.value) and "shard the text with" in str(caught.value)


# ---- from elsewhere, and longer or larger ----------------------------------------------------------------------------


def test_a_run_begins_with_a_transformers_folder(tiny, tmp_path):
    """One that transformers saved again: the first evaluation is the old run's last."""
    transformers = pytest.importorskip("transformers", reason="saves the folder again")
    tiny = [*tiny, "evaluation.max_sequences=0", "training.num_steps=2"]
    kogpt2("train", "debug_cpu", *tiny)
    kogpt2("convert", tmp_path / "run", tmp_path / "there")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "there")
    theirs.save_pretrained(tmp_path / "there")
    there = [*tiny, f"tracking.run_dir={tmp_path / 'second'}"]
    done = kogpt2("train", "debug_cpu", *there, "--init-from", tmp_path / "there")
    assert f"begins with the weights of {tmp_path / 'there'}, as a new run" in done.stdout
    assert evaluations(tmp_path / "second")[0][1] == pytest.approx(evaluations(tmp_path / "run")[-1][1], rel=1e-6)


def test_longer_and_larger_are_refused_unless_it_is_said_how(checkpoint):
    longer, larger = "model.max_length=100", "model.vocab_size=600"
    with pytest.raises(RecipeError, match=r"max_length: 64 -> 100, .*training\.init_positions and training\.init_voc"):
        find_initial_weights(recipe_for(checkpoint, longer, larger), None)
    rules = ["training.init_positions=repeat", "training.init_vocabulary=mean"]
    found = find_initial_weights(recipe_for(checkpoint, longer, larger, *rules), None)
    assert found.notes == ["100 positions are made of 64: init_positions=repeat"]
    arrays, before = found.arrays(), checkpoint.model_arrays()
    assert arrays["_pos_embed.weight"].shape == (100, 96) and arrays["_logits_proj.weight"].shape == (600, 96)
    assert np.array_equal(arrays["_embed.weight"][:501], before["_embed.weight"])
    assert np.allclose(arrays["_embed.weight"][501:], before["_embed.weight"].mean(axis=0), atol=1e-7)
    adapted = find_initial_weights(recipe_for(checkpoint, longer, rules[0], "adaptation.method=lora"), None)
    assert adapted.notes[0].endswith("the new ones stay so: adaptation.method=lora trains no embedding")
    with pytest.raises(RecipeError, match=r"max_length: 64 -> 32\); take its sizes$"):  # shorter is not longer
        find_initial_weights(recipe_for(checkpoint, "model.max_length=32", "data.seq_length=32", *rules), None)


def test_more_pieces_need_rows_and_keep_the_ids_of_the_others(checkpoint, tmp_path):
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(checkpoint.tokenizer_path.read_bytes())
    known = len(proto.pieces)
    proto.pieces.add(piece="리뷰어", score=0.0, type=4)
    (tmp_path / "more.model").write_bytes(proto.SerializeToString())
    more = Tokenizer.load(tmp_path / "more.model")
    with pytest.raises(RecipeError, match=f"{known + 1:,} pieces in the data's, {known:,} in the network's"):
        find_initial_weights(recipe_for(checkpoint), more)
    found = find_initial_weights(recipe_for(checkpoint, "training.init_vocabulary=mean"), more)
    assert found.notes == [f"rows of 1 new pieces: the mean of the {known} others"]
    rows, before = found.arrays()["_embed.weight"], checkpoint.model_arrays()["_embed.weight"]
    assert np.array_equal(rows[:known], before[:known]) and np.allclose(rows[known], before[:known].mean(axis=0))


def test_rules_for_more_rows():
    known = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert more_positions(known, 4, "none") is known
    assert more_positions(known, 6, "repeat").tolist() == [*known.tolist(), [0, 1], [2, 3]]
    drawn_out = more_positions(known, 7, "interpolate")
    assert drawn_out.dtype == np.float32 and drawn_out[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert more_pieces(known, 5, 4).tolist() == [*known.tolist(), [3, 4]]
    assert more_pieces(known, 4, 2).tolist() == [[0, 1], [2, 3], [1, 2], [1, 2]]
    assert more_pieces(known, 4, 4) is known
