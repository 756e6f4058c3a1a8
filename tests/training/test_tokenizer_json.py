"""The whole road with a tokenizer.json: shards, training, resuming, scores, text on the fly, generation, conversion."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.evaluation import evaluate_checkpoint, scored_sums
from kogpt2_gluon.inference.generation import generate_from_checkpoint, prompt_notes
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.reading.text.held_out import TextOptions, open_held_out_text
from kogpt2_gluon.reading.text.tokens import DocumentEncoder
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.shards.recount import recount
from kogpt2_gluon.shards.repair import repair_sets
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.sharding import shard_corpus
from kogpt2_gluon.shards.verify import verify
from kogpt2_gluon.staging.staging import take_inventory
from kogpt2_gluon.tokens.report import report_tokenizers
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import CHUNK_BYTES, kogpt2
from tests.shards.shard_helpers import read_back
from tests.tokens import json_helpers
from tests.tokens.json_helpers import write_json

ENDS = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
KINDS: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "byte_level": (json_helpers.byte_level, {}),
    "kogpt2": (json_helpers.kogpt2, ENDS),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizer.json, and train/ and test/ shards of the corpus of all tests."""
    make, special = KINDS[request.param]
    work = tmp_path_factory.mktemp(request.param)
    lines = list(Corpus.open(shards / "corpus").documents("train"))[:500]
    path = write_json(work / "tokenizer", make(lines, 700), **special)
    for split in ("train", "test"):
        shard_corpus(shards / "corpus", path, work / split, split, chunk_bytes=CHUNK_BYTES)
    return work


@pytest.fixture(scope="module")
def trained(made: Path) -> list[str]:
    """The overrides of a tiny recipe on these shards, trained for 4 steps in made/run."""
    recipe = [
        "model.units=32",
        "model.num_heads=2",
        "model.num_layers=1",
        "model.max_length=32",
        "model.vocab_size=800",
        f"data.train={made / 'train'}",
        f"data.test={made / 'test'}",
        "data.seq_length=32",
        "training.batch_size=4",
        "training.total_batch_size=8",
        "training.num_steps=4",
        "training.threads=1",
        "evaluation.max_sequences=8",
        "checkpoint.interval=2",
        "tracking.tensorboard=false",
        "tracking.sample_prompts=[오늘은]",
        f"tracking.run_dir={made / 'run'}",
    ]
    kogpt2("train", "debug_cpu", *recipe)
    return recipe


def test_shards_hold_one_token_between_documents(made: Path, shards: Path) -> None:
    tokenizer = Tokenizer.load(made / "tokenizer" / "tokenizer.json")
    documents = list(Corpus.open(shards / "corpus").documents("test"))
    with ShardSet(made / "test") as opened:
        tokens, manifest = read_back(opened), opened.manifest
    stored = made / "test" / "tokenizer.json"
    assert stored.read_bytes() == tokenizer.stored.content and Tokenizer.load(stored).sha256 == tokenizer.sha256
    assert manifest.special_ids == tokenizer.special_ids and tokenizer.bos_id == tokenizer.eos_id
    expected = [[*tokenizer.encode(document), tokenizer.eos_id] for document in documents]
    assert tokens.tolist() == [token for document in expected for token in document]
    assert DocumentEncoder(tokenizer).encode([document.encode() for document in documents]).tolist() == tokens.tolist()
    normalized = [tokenizer.normalize(document) for document in documents]
    assert manifest.text_bytes == sum(len(text.encode()) for text in normalized)
    assert manifest.words == sum(len(text.split()) for text in normalized)
    assert manifest.unknown == (0 if tokenizer.unk_id is None else int((tokens == tokenizer.unk_id).sum()))
    if tokenizer.unk_id is None:
        assert normalized == documents


def test_verify_counts_and_repairs_them(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(made / "test", folder)
    shutil.copytree(made / "train", tmp_path / "train")
    assert not verify(tmp_path).faults
    inventory = take_inventory(tmp_path)
    assert not inventory.faults and sum(each.path.name == "tokenizer.json" for each in inventory.files) == 2
    with ShardSet(folder) as opened:
        manifest = opened.manifest
    before = (manifest.text_bytes, manifest.words, manifest.unknown)
    recount(folder, manifest)
    assert (manifest.text_bytes, manifest.words, manifest.unknown) == before or manifest.unknown
    (folder / "tokenizer.json").write_bytes(b"{}")
    assert "tokenizer.json: not the tokenizer of these shards" in str(verify(folder).faults[0])
    repair_sets(verify(tmp_path), lambda: verify(tmp_path))
    assert not verify(tmp_path).faults and (folder / "damaged" / "tokenizer.json").read_bytes() == b"{}"
    (folder / "tokenizer.json").unlink()
    repair_sets(verify(tmp_path), lambda: verify(tmp_path))
    assert not verify(tmp_path).faults


def test_a_run_resumes_and_stores_its_tokenizer(made: Path, trained: list[str], tmp_path: Path) -> None:
    checkpoint = open_checkpoint(made / "run")
    assert sorted(path.name for path in checkpoint.path.glob("tokenizer*")) == ["tokenizer.json"]
    assert checkpoint.tokenizer_path.read_bytes() == (made / "train" / "tokenizer.json").read_bytes()
    step = made / "run" / "checkpoints" / "step-00000002"
    again = f"tracking.run_dir={tmp_path / 'again'}"
    kogpt2("train", "debug_cpu", *trained, again, "--resume", step)
    assert open_checkpoint(tmp_path / "again").model_path.read_bytes() == checkpoint.model_path.read_bytes()


def test_scores_count_every_token_and_byte(made: Path, shards: Path, trained: list[str]) -> None:
    score = evaluate_checkpoint(made / "run", made / "test", batch_size=5)
    net, tokenizer, _, ctx = load_checkpoint(made / "run", "cpu")
    with ShardSet(made / "test") as opened:
        tokens, manifest = read_back(opened).astype(np.int32), opened.manifest
        filled = np.concatenate(list(HeldOutReader(opened, 32).batches(1)))
    assert score.tokens == manifest.tokens - 1 == (filled[:, 1:] != -1).sum()
    total = 0.0
    for start in range(0, len(tokens) - 1, 32):
        part = tokens[None, start : start + 33]
        total += scored_sums(LanguageModelLoss(net)(mx.nd.array(part, ctx=ctx, dtype="int32")).asnumpy(), part, -1)[0]
    assert score.loss == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    bits = total / (len(tokens) - 1) / math.log(2) * len(tokens) / manifest.text_bytes
    assert score.bits_per_byte == pytest.approx(bits, rel=1e-5)
    text = evaluate_checkpoint(made / "run", shards / "corpus" / "test", batch_size=5)
    of_shards = {name: figure for name, figure in score.to_dict().items() if figure is not None}
    assert {name: text.to_dict()[name] for name in of_shards} == pytest.approx(of_shards, rel=1e-5)
    held_out, _ = open_held_out_text(shards / "corpus" / "test", TextOptions(), tokenizer, 32)
    assert np.array_equal(np.concatenate(list(held_out.batches(1))), filled)
    with pytest.raises(DataError, match="made with another tokenizer than"):
        evaluate_checkpoint(made / "run", shards / "test")


def test_text_on_the_fly_trains_on_the_same_tokenizer(
    made: Path, shards: Path, trained: list[str], tmp_path: Path
) -> None:
    (tmp_path / "text").mkdir()
    documents = list(Corpus.open(shards / "corpus").documents("train"))[:400]
    (tmp_path / "text" / "a.txt").write_text("\n".join(documents) + "\n", encoding="utf-8")
    text = [
        "data.source=text",
        "data.documents=line",
        f"data.train={tmp_path / 'text'}",
        f"data.tokenizer={made / 'tokenizer' / 'tokenizer.json'}",
        f"tracking.run_dir={tmp_path / 'run'}",
        "training.num_steps=2",
    ]
    kogpt2("train", "debug_cpu", *trained, *text)
    mine, theirs = open_checkpoint(tmp_path / "run"), open_checkpoint(made / "run")
    assert mine.state()["tokenizer_sha256"] == theirs.state()["tokenizer_sha256"]
    assert mine.tokenizer_path.read_bytes() == theirs.tokenizer_path.read_bytes()
    dropout = ["data.bpe_dropout=0.1", f"tracking.run_dir={tmp_path / 'other'}", "--dry-run"]
    refused = kogpt2("train", "debug_cpu", *trained, *text, *dropout, code=2).stderr
    assert "tokenizer.json: data.bpe_dropout needs a SentencePiece model" in refused and refused.count("\n") == 1


def test_texts_are_written(made: Path, shards: Path, trained: list[str]) -> None:
    for prompt in ("오늘은 날씨가", ""):
        texts = generate_from_checkpoint(made / "run", prompt, Sampling(12, seed=1), num_samples=3)
        assert all(text.startswith(prompt) and "</s>" not in text and "<|endoftext|>" not in text for text in texts)
    _, tokenizer, _, _ = load_checkpoint(made / "run", "cpu")
    name = tokenizer.pieces[tokenizer.eos_id]
    assert prompt_notes(tokenizer, f"끝{name}", 999, 1)[-1].startswith(f"{name} in the prompt is read as text")
    found = report_tokenizers([made / "train" / "tokenizer.json"], [shards / "corpus"], sample_mb=0.01)
    assert found["tokenizers"][0]["vocab_size"] == tokenizer.vocab_size
    if tokenizer.unk_id is None:
        assert found["rows"][0]["round_trip_rate"] == 1 and found["rows"][0]["unknown_rate"] == 0


def test_it_goes_to_transformers_and_comes_back(
    made: Path, trained: list[str], tmp_path: Path, transformers: ModuleType
) -> None:
    source, _ = open_source(made / "run")
    convert_to("huggingface", source, tmp_path / "hf")
    mine = Tokenizer.load(source.tokenizer_path)
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == source.tokenizer_path.read_bytes()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (mine.bos_id, mine.eos_id)
    for text in ("오늘은 날씨가 좋아서 산책을 했다.", "날씨가 :-)  좋다 ^^"):
        if not mine.unknown_in(text):  # which the library alone would drop
            assert theirs(text)["input_ids"] == mine.encode(text)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["bos_token_id"] == config["eos_token_id"] == mine.eos_id
    back, _ = open_source(tmp_path / "hf")
    convert_to("checkpoint", back, tmp_path / "back")
    again = open_checkpoint(tmp_path / "back")
    assert again.tokenizer_path.name == "tokenizer.json"
    assert Tokenizer.load(again.tokenizer_path).sha256 == mine.sha256
    assert evaluate_checkpoint(tmp_path / "back", made / "test").tokens > 0
    on = [f"training.init_from={tmp_path / 'hf'}", f"tracking.run_dir={tmp_path / 'on'}", "training.num_steps=1"]
    kogpt2("train", "debug_cpu", *trained, *on)
    assert Tokenizer.load(open_checkpoint(tmp_path / "on").tokenizer_path).sha256 == mine.sha256
