"""`make demo`: every stage on the package's own Korean sentences, each through its public function."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe

MARK = ".kogpt2-demo"  # a folder that holds this file is ours to remove
PROMPTS = ("오늘은", "이 영화는")  # "today", "this film"


def run_demo(work_dir: Path, say: Callable[[str], None] = print, num_steps: int | None = None) -> None:
    """Makes text, corpus, tokenizer and shards, trains, evaluates, generates and converts, all below `work_dir`.

    `num_steps` replaces the number of updates of recipes/demo.yaml. Raises RecipeError if `work_dir` holds files that
    no earlier demo made.
    """
    began = time.perf_counter()
    _make_room(work_dir)
    recipe = load_recipe(
        "demo",
        [
            f"data.train={work_dir}/shards/train",
            f"data.test={work_dir}/shards/test",
            f"tracking.run_dir={work_dir}/run",
            *([f"training.num_steps={num_steps}"] if num_steps else []),
        ],
    )
    _make_shards(work_dir, recipe.model.vocab_size, say)

    say("\n5/7 train: recipes/demo.yaml")
    from kogpt2_gluon.machine import runtime

    runtime.prepare(recipe.training.threads)
    from kogpt2_gluon.inference.generation import generate_from_checkpoint
    from kogpt2_gluon.inference.sampling import Sampling
    from kogpt2_gluon.runs.metrics import read_metrics
    from kogpt2_gluon.training.loop import train

    train(recipe)

    say("\n6/7 generate")
    sampling = Sampling(max_new_tokens=40, temperature=0.8, top_k=40, seed=1)
    samples = [generate_from_checkpoint(work_dir / "run", prompt, sampling)[0] for prompt in PROMPTS]
    for sample in samples:
        say(f"  {sample}")

    say("\n7/7 convert to PyTorch's transformers")
    from kogpt2_gluon.convert.huggingface import convert_checkpoint
    from kogpt2_gluon.runs.checkpoint import open_checkpoint

    converted = work_dir / "huggingface"
    convert_checkpoint(open_checkpoint(work_dir / "run"), converted)
    say(f"  {converted}")

    held_out = [line for line in read_metrics(work_dir / "run") if line["kind"] == "evaluation"]
    before, after = held_out[0], held_out[-1]
    say(
        f"""
Done in {time.perf_counter() - began:.0f} s. Held-out text, before -> after {recipe.training.num_steps} updates:
  perplexity     {before["perplexity"]:9.1f} -> {after["perplexity"]:.2f}
  bits per byte  {before["bits_per_byte"]:9.3f} -> {after["bits_per_byte"]:.3f}
Two generated texts:
  {samples[0]}
  {samples[1]}
Curves and samples on one page: {work_dir}/run/report.html
PyTorch folder: {converted}; one line loads it (pip install -c constraints.txt torch transformers):
  from transformers import GPT2LMHeadModel; model = GPT2LMHeadModel.from_pretrained("{converted}")

Next, your own text, one document a line (kogpt2 is in .venv/bin):
  kogpt2 clean my.txt --documents line --out corpus
  kogpt2 tokenizer corpus --vocab-size 8000 --out tokenizer.model
  kogpt2 shard corpus --tokenizer tokenizer.model --out shards
  kogpt2 train small_cpu                  # fewer steps: training.num_steps=1000; --dry-run prints what it takes"""
    )


def _make_room(work_dir: Path) -> None:
    """Empty the folder of an earlier demo. Raise RecipeError for any other folder that has files in it."""
    if work_dir.exists() and any(work_dir.iterdir()):
        if not (work_dir / MARK).is_file():
            raise RecipeError(f"{work_dir}: not empty, and not made by an earlier demo; choose another --dir")
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / MARK).touch()


def _make_shards(work_dir: Path, vocab_size: int, say: Callable[[str], None]) -> None:
    from kogpt2_gluon.corpus.cleaning import clean
    from kogpt2_gluon.corpus.store import SPLITS
    from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
    from kogpt2_gluon.machine.limits import available_cores
    from kogpt2_gluon.shards.sharding import shard_corpus
    from kogpt2_gluon.tokens.training import train_tokenizer

    text, corpus, tokenizer = work_dir / "text.txt", work_dir / "corpus", work_dir / "tokenizer.model"
    say("1/7 text: Korean sentences from the package's own templates")
    write_sample_corpus(text)
    say("\n2/7 clean")
    say(clean([text], corpus, "line", test_share=0.02).summary())
    say(f"\n3/7 tokenizer: SentencePiece BPE of {vocab_size:,} tokens")
    train_tokenizer(corpus, tokenizer, vocab_size)
    say("\n4/7 shard")
    for split in SPLITS:
        manifest = shard_corpus(corpus, tokenizer, work_dir / "shards" / split, split, available_cores())
        say(f"{split}: {manifest.documents:,} documents, {manifest.tokens:,} tokens")
