"""Which texts should a network be trained on? The same network on mixes of corpora, at the same number of tokens.

    python benchmarks/corpus_mixes.py FOLDER [--dir mixes] [--tokens 3000000] [--set KEY=VALUE ...]
                                      [--task nsmc --task-data DIR --shots 0,4] [--json] [--out mixes.svg]

FOLDER has the files of DOMAINS. Each is cleaned and a part of it held out; one tokenizer is trained on as much of each;
each becomes shards. Then recipes/mixes/mix.yaml is trained once for every mix of MIXES, with one seed and one schedule,
and scored on the held-out text of every domain: bits per raw byte, with what restores that text, as `kogpt2 evaluate`
has them. For other settings (--set) name another --dir. With --task the table has the zero- and few-shot scores of
`kogpt2 score` too, as Kim et al. (HyperCLOVA, 2021) compared their corpora: they found that perplexity and in-context
scores need not agree.

At the same number of tokens a small corpus is read more often than a large one; the table says how often. A stage whose
result is there is not run again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from conditions import conditions
from pictures import COLOURS, dot_plot
from verbs import kogpt2

from kogpt2_gluon.corpus.store import CORPUS_FILE, Corpus
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.pages.standalone import standalone
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.shards.format import MANIFEST, Manifest

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "mixes" / "mix.yaml"


@dataclass(frozen=True)
class Domain:
    """A corpus: its file in FOLDER, what a document of it is, and the share that is held out (some 300 kB of each)."""

    file: str
    documents: str
    test_share: float


DOMAINS = {
    "reviews": Domain("nsmc_raw_reviews.txt", "line", 0.01),
    "technical": Domain("tech_docs_ko.jsonl", "text", 0.05),
    "treebank": Domain("kaist_treebank_docs.txt", "blank-line", 0.1),
}
BY_SIZE = -1.0  # a weight: the tokens that the domain has
MIXES = {
    "reviews alone": {"reviews": 1.0},
    "technical alone": {"technical": 1.0},
    "treebank alone": {"treebank": 1.0},
    "equal thirds": {"reviews": 1.0, "technical": 1.0, "treebank": 1.0},
    "by size": {"reviews": BY_SIZE, "technical": BY_SIZE, "treebank": BY_SIZE},
}


@dataclass(frozen=True)
class Row:
    """A mix: how often each domain was read, bits per raw byte on each, and in-context scores, "0-shot" and so on."""

    mix: str
    passes: dict[str, float]
    bits_per_raw_byte: dict[str, float]
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean of bits per raw byte over the domains, each counted alike."""
        return sum(self.bits_per_raw_byte.values()) / len(self.bits_per_raw_byte)


@dataclass(frozen=True)
class Question:
    """The words for `kogpt2 score`; `way` is one of its ways to choose an answer."""

    task: str
    data: Path
    shots: str
    draws: int
    rows: int
    way: str


def prepare(folder: Path, work: Path, vocab_size: int) -> dict[str, Path]:
    """Makes corpora, the tokenizer and shards below `work`, as far as they are missing: {domain: its shards}."""
    corpora, shards = {}, {}
    for name, domain in DOMAINS.items():
        corpora[name] = work / "corpora" / name
        if not (corpora[name] / CORPUS_FILE).is_file():
            options = ("--documents", domain.documents, "--test-share", domain.test_share, "--out", corpora[name])
            kogpt2("clean", folder / domain.file, *options)
    tokenizer = work / "tokenizer.model"
    if not tokenizer.is_file():
        least = min(Corpus.open(corpus).size("train") for corpus in corpora.values()) / 1e6
        parts = [_sample(corpus, work / "samples" / name, least) for name, corpus in corpora.items()]
        kogpt2("tokenizer", *parts, "--vocab-size", vocab_size, "--out", tokenizer)
    for name, corpus in corpora.items():
        shards[name] = work / "shards" / name
        if not (shards[name] / "test" / MANIFEST).is_file():
            kogpt2("shard", corpus, "--tokenizer", tokenizer, "--out", shards[name])
    return shards


def _sample(corpus: Path, out: Path, megabytes: float) -> Path:
    """Makes a corpus of the first `megabytes` of another one, so that the tokenizer learns as much of each domain."""
    if not (out / CORPUS_FILE).is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        text, left = out.with_suffix(".txt"), megabytes * 1e6
        opened = Corpus.open(corpus)
        with text.open("wb") as stream:
            for document in opened.documents("train"):
                data = opened.layout.join([document.encode()])
                stream.write(data)
                left -= len(data)
                if left <= 0:
                    break
        kogpt2("clean", text, "--documents", opened.layout.name, "--test-share", 0, "--out", out)
    return out


def weights_of(mix: dict[str, float], sizes: dict[str, int]) -> dict[str, float]:
    """Returns the shares of a mix, which add up to one; `sizes` are the tokens of each domain."""
    plain = {name: float(sizes[name]) if weight == BY_SIZE else weight for name, weight in mix.items()}
    return {name: weight / sum(plain.values()) for name, weight in plain.items()}


def train(run: Path, weights: dict[str, float], shards: dict[str, Path], settings: list[str]) -> None:
    """Trains the network on a mix, or goes on with a training that was interrupted."""
    mix = ", ".join(f"{(shards[domain] / 'train').resolve()}: {weight:.6f}" for domain, weight in weights.items())
    words = [*settings, f"data.train={{{mix}}}", f"tracking.run_dir={run}"]
    recipe = load_recipe(str(RECIPE), words)
    if not is_trained(run, recipe):
        kogpt2("train", RECIPE, *words)


def is_trained(run: Path, recipe: Recipe) -> bool:
    """Returns True if the run has its last checkpoint."""
    if not (run / "checkpoints" / "latest").is_file():
        return False
    return bool(open_checkpoint(run).state()["step"] >= recipe.training.num_steps)


def score(run: Path, work: Path, question: Question | None) -> tuple[dict[str, float], dict[str, float]]:
    """Returns bits per raw byte on each domain, and the in-context scores by their names."""
    bits = {}
    for name in DOMAINS:
        found = json.loads(kogpt2("evaluate", run, work / "corpora" / name / "test", "--batch-size", 32, "--json"))
        bits[name] = found["bits_per_raw_byte"]
    return bits, {} if question is None else in_context(run, question)


def in_context(run: Path, question: Question) -> dict[str, float]:
    """Returns {"0-shot nsmc accuracy": mean over the draws, ...}, by the first metric of the task."""
    options = ("--shots", question.shots, "--draws", question.draws, "--rows", question.rows)
    options = (*options, "--too-long", "fewer-shots")
    found = json.loads(kogpt2("score", run, "--task", question.task, "--data", question.data, *options, "--json"))
    scores = {}
    for each in found["shots"]:
        metric, summary = next(iter(each["scores"][question.way].items()))
        if summary["mean"] is not None:
            scores[f"{each['shots']}-shot {found['task']} {metric}"] = summary["mean"]
    return scores


def table(rows: list[Row]) -> str:
    """Returns a Markdown table: a row for each mix."""
    names = list(rows[0].scores)
    head = ["mix", *DOMAINS, "mean", "times read", *names]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(DOMAINS) + 1) + "---|" + "---:|" * len(names)]
    best = {name: min(row.bits_per_raw_byte[name] for row in rows) for name in DOMAINS}
    for row in rows:
        cells = [
            f"**{bits:.3f}**" if bits == best[name] else f"{bits:.3f}" for name, bits in row.bits_per_raw_byte.items()
        ]
        passes = ", ".join(f"{name} {times:.2g}" for name, times in row.passes.items())
        scores = [f"{row.scores[name]:.3f}" if name in row.scores else "" for name in names]
        lines.append("| " + " | ".join([row.mix, *cells, f"{row.mean:.3f}", passes, *scores]) + " |")
    return "\n".join(lines)


def draw(rows: list[Row]) -> str:
    """Returns the picture: a line for each mix, with a dot for each domain."""
    picture = dot_plot(
        {row.mix: row.bits_per_raw_byte for row in rows}, title="corpus mixes", unit="bits per raw byte, held-out"
    )
    return standalone(picture, COLOURS)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dir", "work", default="mixes", type=click.Path(path_type=Path), help="Where everything is kept.")
@click.option("--tokens", default=3_072_000, show_default=True, help="Of each training.")
@click.option("--only", multiple=True, type=click.Choice(list(MIXES)), help="These mixes only.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Given to every training.")
@click.option("--task", help="A task of `kogpt2 score`.")
@click.option("--task-data", type=click.Path(exists=True, path_type=Path), help="Folder of the task's files.")
@click.option("--shots", default="0,4", show_default=True)
@click.option("--draws", default=3, show_default=True)
@click.option("--rows", default=500, show_default=True, help="Rows of the task.")
@click.option(
    "--way", default="against neutral", show_default=True, help="How an answer is chosen; see `kogpt2 score`."
)
@click.option("--json", "as_json", is_flag=True)
@click.option("--out", type=click.Path(path_type=Path), help="The picture, as SVG.")
def main(
    folder: Path,
    work: Path,
    tokens: int,
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    task: str | None,
    task_data: Path | None,
    shots: str,
    draws: int,
    rows: int,
    way: str,
    as_json: bool,
    out: Path | None,
) -> None:
    """Train a small network on several mixes of the corpora in FOLDER, and compare."""
    if (task is None) != (task_data is None):
        raise click.UsageError("--task and --task-data come together")
    question = Question(task, task_data, shots, draws, rows, way) if task and task_data else None
    try:
        found = compare(folder, work, tokens, only or tuple(MIXES), list(overrides), question)
    except KoGPT2Error as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if out:
        out.write_text(draw(found), encoding="utf-8")
    if as_json:
        plain: dict[str, Any] = {"rows": [asdict(row) for row in found], "tokens": tokens, "conditions": conditions()}
        click.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        click.echo(table(found))


def compare(
    folder: Path, work: Path, tokens: int, names: tuple[str, ...], overrides: list[str], question: Question | None
) -> list[Row]:
    """Makes what is missing, and returns a row for each mix."""
    recipe = load_recipe(str(RECIPE), overrides)
    shards = prepare(folder, work, recipe.model.vocab_size)
    sizes = {name: Manifest.load(path / "train").tokens for name, path in shards.items()}
    num_steps = max(1, tokens // recipe.tokens_per_step)
    settings = [*overrides, f"training.num_steps={num_steps}"]
    rows = []
    for name in names:
        weights = weights_of(MIXES[name], sizes)
        click.echo(f"{name}: {', '.join(f'{each} {weight:.0%}' for each, weight in weights.items())}", err=True)
        run = work / f"runs-{num_steps}" / name.replace(" ", "-")  # another schedule is another training
        train(run, weights, shards, settings)
        passes = {each: weight * tokens / sizes[each] for each, weight in weights.items()}
        rows.append(Row(name, passes, *score(run, work, question)))
    return rows


if __name__ == "__main__":
    main()
