"""A network that was trained on reviews learns technical documents: what is gained there, and what is forgotten here?

    python benchmarks/domain_adaptation.py FOLDER [--dir domain] [--base RUN] [--base-steps 3000] [--steps 1000]
                                           [--shares 0,0.1,0.25,0.5] [--terms 50] [--set KEY=VALUE ...] [--json]
                                           [--out domain.md]

FOLDER has nsmc_raw_reviews.txt and tech_docs_ko.jsonl. Both are cleaned and a part of each is held out. Without --base
a network is trained on the reviews by recipes/small_cpu.yaml for --base-steps. `kogpt2 tokenizer suggest` and `rename`
give its tokenizer the domain's terms, and recipes/adapt.yaml goes on from it: with each share of reviews, then, with
the share nearest to a quarter, without the terms, and with the terms beginning as unused tokens.

Every network is scored on the held-out text of both: bits per raw byte, as `kogpt2 evaluate` has them, which compare
between tokenizers. Forgetting is what a row has above the first one on reviews. --set is given to every adaptation, and
--base-set to the first training. For other settings name another --dir: a stage whose result is there is not run again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from conditions import conditions
from verbs import kogpt2

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.corpus.store import CORPUS_FILE
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.shards.format import MANIFEST

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
DOMAIN, GENERAL = "technical", "reviews"
TEXTS = {GENERAL: ("nsmc_raw_reviews.txt", "line", 0.01), DOMAIN: ("tech_docs_ko.jsonl", "text", 0.05)}
USUAL_SHARE = 0.25


@dataclass(frozen=True)
class Settings:
    """The arguments; `work` has all that is made."""

    folder: Path
    work: Path
    base: Path | None
    base_steps: int
    steps: int
    shares: Sequence[float]
    terms: int
    base_settings: Sequence[str]
    settings: Sequence[str]


@dataclass(frozen=True)
class Row:
    """A network: its share of old text (None before the adaptation), and bits per raw byte on both texts."""

    name: str
    share: float | None
    domain: float
    general: float


def say(line: str) -> None:
    click.echo(line, err=True)


def corpora(given: Settings) -> dict[str, Path]:
    """Cleans both texts: {name: corpus}."""
    found = {name: given.work / "corpora" / name for name in TEXTS}
    for name, (file, documents, test_share) in TEXTS.items():
        if not (found[name] / CORPUS_FILE).is_file():
            options = ("--documents", documents, "--test-share", test_share, "--out", found[name])
            kogpt2("clean", given.folder / file, *options)
    return found


def shards(corpus: Path, tokenizer: Path, out: Path) -> Path:
    """Makes the shards of a corpus."""
    if not (out / "test" / MANIFEST).is_file():
        kogpt2("shard", corpus, "--tokenizer", tokenizer, "--out", out)
    return out


def train(recipe: str, run: Path, words: Sequence[str]) -> None:
    """Trains a recipe to its last step, or goes on with a training that was interrupted."""
    given = [*words, f"tracking.run_dir={run}"]
    steps = load_recipe(str(RECIPES / recipe), given).training.num_steps
    is_begun = (run / "checkpoints" / "latest").is_file()
    if not is_begun or open_checkpoint(run).state()["step"] < steps:
        say(f"{run}: {steps:,} steps")
        kogpt2("train", RECIPES / recipe, *given)


def base_network(given: Settings, general: Path) -> Path:
    """Returns the network that is adapted; trains it on the general corpus if none is named."""
    if given.base:
        return given.base
    tokenizer, run = given.work / "tokenizer.model", given.work / "runs" / "base"
    words = [f"training.num_steps={given.base_steps}", *given.base_settings]
    if not tokenizer.is_file():
        size = load_recipe(str(RECIPES / "small_cpu.yaml"), words).model.vocab_size
        kogpt2("tokenizer", general, "--vocab-size", size, "--out", tokenizer)
    made = shards(general, tokenizer, given.work / "shards" / "base")
    train("small_cpu.yaml", run, [*words, f"data.train={made / 'train'}", f"data.test={made / 'test'}"])
    return run


def named_tokenizer(given: Settings, before: Path, texts: dict[str, Path]) -> Path:
    """Returns the tokenizer with the domain's terms as the names of unused tokens."""
    terms, named = given.work / "terms.txt", given.work / "named.model"
    if not named.is_file():
        options = ("--base", texts[GENERAL], "--count", given.terms, "--out", terms, "--overwrite")
        say(kogpt2("tokenizer", "suggest", before, texts[DOMAIN], *options))
        kogpt2("tokenizer", "rename", before, "--from", terms, "--out", named)
    return named


def adapt(given: Settings, run: Path, base: Path, share: float, sets: dict[str, Path], *more: str) -> Path:
    """Goes on with the training of `base` on the domain, with a share of the old text."""
    weights = {DOMAIN: 1 - share, GENERAL: share}
    mix = ", ".join(f"{(sets[name] / 'train').resolve()}: {weight:g}" for name, weight in weights.items() if weight)
    model = open_source(base)[0].recipe().to_dict()["model"]
    sizes = [f"model.{key}={value}" for key, value in model.items() if key != "dropout"]
    length = f"data.seq_length={min(128, model['max_length'])}"
    words = [*sizes, length, f"data.train={{{mix}}}", f"data.test={sets[DOMAIN] / 'test'}"]
    words += [f"training.init_from={base}", f"training.num_steps={given.steps}", *more, *given.settings]
    train("adapt.yaml", run, words)
    return run


def score(name: str, share: float | None, run: Path, texts: dict[str, Path]) -> Row:
    """Scores a network on the held-out text of both corpora."""
    bits = {}
    for text, corpus in texts.items():
        found = json.loads(kogpt2("evaluate", run, corpus / "test", "--batch-size", 32, "--json"))
        bits[text] = found["bits_per_raw_byte"]
    return Row(name, share, bits[DOMAIN], bits[GENERAL])


def compare(given: Settings) -> list[Row]:
    """Makes what is missing, and returns a row for each network."""
    texts = corpora(given)
    base = base_network(given, texts[GENERAL])
    before = open_source(base)[0].tokenizer_path
    named = named_tokenizer(given, before, texts)
    sets = {
        kind: {name: shards(texts[name], tokenizer, given.work / "shards" / f"{kind}-{name}") for name in TEXTS}
        for kind, tokenizer in (("named", named), ("unnamed", before))
    }
    rows = [score("before", None, base, texts)]
    runs = given.work / f"runs-{given.steps}"
    usual = min(given.shares, key=lambda share: abs(share - USUAL_SHARE))
    for share in given.shares:
        run = adapt(given, runs / f"share-{share:g}", base, share, sets["named"])
        rows.append(score("adapted", share, run, texts))
    run = adapt(given, runs / "without-terms", base, usual, sets["unnamed"])
    rows.append(score("adapted, without the terms", usual, run, texts))
    run = adapt(given, runs / "unused-rows", base, usual, sets["named"], "training.init_renamed=none")
    rows.append(score("adapted, terms begin as unused tokens", usual, run, texts))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table: a row for each network, with what it gained and forgot."""
    before = rows[0]
    lines = ["| network | share of old text | technical | gained | reviews | forgotten |", "|---|" + "---:|" * 5]
    for row in rows:
        share = "" if row.share is None else f"{row.share:g}"
        changes = ["", ""]
        if row is not before:
            changes = [f"{before.domain - row.domain:+.3f}", f"{row.general - before.general:+.3f}"]
        cells = [row.name, share, f"{row.domain:.3f}", changes[0], f"{row.general:.3f}", changes[1]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse_shares(context: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    """Returns the shares of a text such as 0,0.25."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} has a part that is not a number") from None
    if not all(0 <= share < 1 for share in shares):
        raise click.BadParameter("a share is at least 0 and below 1")
    return shares


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dir", "work", default="domain", type=click.Path(path_type=Path), help="Where everything is kept.")
@click.option("--base", type=click.Path(exists=True, path_type=Path), help="A network; else one is trained.")
@click.option("--base-steps", default=3000, show_default=True, help="Updates of the first training.")
@click.option("--steps", default=1000, show_default=True, help="Updates of each adaptation.")
@click.option("--shares", default="0,0.1,0.25,0.5", show_default=True, callback=parse_shares, help="Of old text.")
@click.option("--terms", default=50, show_default=True, help="Unused tokens that get a name.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Given to every adaptation.")
@click.option("--base-set", "base_settings", multiple=True, metavar="KEY=VALUE", help="Given to the first training.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--out", type=click.Path(path_type=Path), help="The table, as Markdown.")
def main(
    folder: Path,
    work: Path,
    base: Path | None,
    base_steps: int,
    steps: int,
    shares: list[float],
    terms: int,
    settings: tuple[str, ...],
    base_settings: tuple[str, ...],
    as_json: bool,
    out: Path | None,
) -> None:
    """Adapt a network from reviews to technical documents with several shares of the old text, and compare."""
    try:
        rows = compare(Settings(folder, work, base, base_steps, steps, shares, terms, base_settings, settings))
    except KoGPT2Error as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if out:
        out.write_text(table(rows) + "\n", encoding="utf-8")
    if as_json:
        plain = {"rows": [asdict(row) for row in rows], "steps": steps, "conditions": conditions()}
        click.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        click.echo(table(rows))


if __name__ == "__main__":
    main()
