"""The verb `kogpt2 tokenizer`: train, suggest, rename and report. Without one of these words it trains."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.core import ParameterSource

from kogpt2_gluon.cli.group import Group, echo_json
from kogpt2_gluon.cli.options import json_output
from kogpt2_gluon.cli.paths import ANY_PATH
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.interrupts import interruptible


class TokenizerGroup(Group):
    """Reads `kogpt2 tokenizer CORPUS ...` as `kogpt2 tokenizer train CORPUS ...`, the verb's main purpose."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts `train` in front, unless the first word is a subcommand or asks for help."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["train", *args]
        return super().parse_args(ctx, args)


@click.group(cls=TokenizerGroup, no_args_is_help=True)
def tokenizer() -> None:
    """Corpus -> tokenizer: train one, find terms for its unused tokens, name these, measure how well it suits a text.

    \b
    kogpt2 tokenizer CORPUS... --out tokenizer.model         is short for `tokenizer train`
    """


@tokenizer.command(no_args_is_help=True)
@click.argument("corpora", nargs=-1, required=True, type=ANY_PATH)
@click.option("--out", required=True, type=ANY_PATH, help="The SentencePiece model, or tokenizer.json, to write.")
@click.option("--vocab-size", default=50000, show_default=True, type=click.IntRange(min=8))
@click.option("--unused", default=100, show_default=True, type=click.IntRange(min=0), help="Reserved <unusedN> tokens.")
@click.option(
    "--character-coverage",
    default=0.9995,
    show_default=True,
    help="Share of the text that its most frequent characters must cover; others become <unk>, or bytes if lossless.",
)
@click.option(
    "--profile",
    default="nmt_nfkc",
    show_default=True,
    type=click.Choice(["nmt_nfkc", "nmt_nfkc_jamo", "lossless"]),
    help="How text is normalised. nmt_nfkc: as KoGPT-2 does it (NFKC); a typed ㅋ then comes back as U+110F, another "
    "letter. nmt_nfkc_jamo: the same, but ㅋㅋ and ㅠㅠ come back as typed. lossless: every text comes back as it is.",
)
@click.option("--keep-newlines", is_flag=True, help="A token for the line end, so that documents keep their lines.")
@click.option(
    "--sample-mb",
    default=2000.0,
    show_default=True,
    help="Learn from at most this many MB of text, drawn by hash; it needs 4.5 times as much memory.",
)
@click.option(
    "--byte-level", is_flag=True, help="Byte-level BPE as GPT-2 has it, a tokenizer.json: all text comes back as it is."
)
@click.option(
    "--morphemes",
    type=click.Choice(["kiwi"]),
    help="With --byte-level: cut text at morphemes first, as HyperCLOVA does. Needs kiwipiepy.",
)
@click.option("--overwrite", is_flag=True, help="Replace a tokenizer at --out.")
@click.pass_context
def train(
    context: click.Context,
    corpora: tuple[Path, ...],
    out: Path,
    vocab_size: int,
    unused: int,
    character_coverage: float,
    profile: str,
    keep_newlines: bool,
    sample_mb: float,
    byte_level: bool,
    morphemes: str | None,
    overwrite: bool,
) -> None:
    """Train a SentencePiece BPE like KoGPT-2's on cleaned corpora, or a byte-level BPE.

    \b
    Example: kogpt2 tokenizer train wiki news --vocab-size 50000 --out tokenizer.model
    """
    from kogpt2_gluon.tokens.training import train_tokenizer

    if morphemes and not byte_level:
        raise RecipeError(f"--morphemes {morphemes}: goes with --byte-level; give both")
    _check_out(out, overwrite)
    if byte_level:
        from kogpt2_gluon.tokens.byte_level_training import train_byte_level

        _refuse_of_sentencepiece(context)
        show = sys.stderr.isatty()
        made = train_byte_level(corpora, out, vocab_size, unused, morphemes, sample_mb, verbose=show, say=click.echo)
        click.echo(f"{out}: {made.vocab_size:,} tokens, sha256 {made.sha256[:16]}...")
        return
    trained = train_tokenizer(
        corpora,
        out,
        vocab_size,
        unused=unused,
        character_coverage=character_coverage,
        profile=profile,
        keep_newlines=keep_newlines,
        sample_mb=sample_mb,
        verbose=sys.stderr.isatty(),  # SentencePiece's own log shows the progress: a large corpus takes hours
        say=click.echo,
    )
    click.echo(f"{out}: {trained.vocab_size:,} tokens, sha256 {trained.sha256[:16]}...")


@tokenizer.command(no_args_is_help=True)
@click.argument("model", type=ANY_PATH)
@click.argument("domain", type=ANY_PATH)
@click.option("--base", multiple=True, required=True, type=ANY_PATH, help="Corpus to compare with; repeatable.")
@click.option("--count", default=50, show_default=True, type=click.IntRange(min=1), help="Terms at most.")
@click.option(
    "--least-count", default=20, show_default=True, type=click.IntRange(min=1), help="Times that DOMAIN has a term."
)
@click.option("--out", type=ANY_PATH, help="The list that `tokenizer rename --from` takes.")
@click.option("--overwrite", is_flag=True, help="Replace a list at --out.")
@json_output
@interruptible()
def suggest(
    model: Path,
    domain: Path,
    base: tuple[Path, ...],
    count: int,
    least_count: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Find the terms of a domain that are worth one of the tokenizer's unused tokens each.

    DOMAIN and --base are cleaned corpora, of which the train splits are read. A term begins a word, is more frequent in
    the domain than in the base (log-likelihood ratio), and is cut into several pieces; it comes without the particles
    after it. The terms that save most tokens come first. Look through the list before it is used: lines may be deleted.

    \b
    Example: kogpt2 tokenizer suggest tokenizer.model manuals --base corpus --out terms.txt
             kogpt2 tokenizer rename tokenizer.model --from terms.txt --out named.model
    """
    from kogpt2_gluon.cli.progress_bar import progress_bar
    from kogpt2_gluon.tokens.domain_terms import suggest_terms, write_renamings
    from kogpt2_gluon.tokens.terms_table import plain, table

    if out and out.exists() and not overwrite:
        raise RecipeError(f"{out}: exists, and may have been looked through; choose another --out, or give --overwrite")
    with progress_bar("counting words") as bar:
        found = suggest_terms(model, domain, base, count, least_count, bar.show)
    if out:
        write_renamings(found, out)
    if as_json:
        echo_json(plain(found), indent=1)
        return
    click.echo(table(found))
    if out and found.terms:
        click.echo(f"{out}: look through it, then: kogpt2 tokenizer rename {model} --from {out} --out NEW.model")


@tokenizer.command(no_args_is_help=True)
@click.argument("model", type=ANY_PATH)
@click.option("--token", "tokens", multiple=True, metavar="'<unusedN>=TERM'", help="May be given many times.")
@click.option("--from", "listed", type=ANY_PATH, metavar="FILE", help="A list of them, of `tokenizer suggest`.")
@click.option("--out", required=True, type=ANY_PATH, help="The SentencePiece model to write.")
@click.option("--overwrite", is_flag=True, help="Replace a tokenizer at --out.")
@interruptible()
def rename(model: Path, tokens: tuple[str, ...], listed: Path | None, out: Path, overwrite: bool) -> None:
    """Give unused tokens a name: a domain's term becomes one token, all other ids stay the same.

    With U+2581 in front, as in '<unused7>=▁리뷰어' ("reviewer"), the token is the term with the space before it, which
    is shorter for words that begin with the term. Without it, the term is found anywhere. Make the shards again
    afterwards.

    \b
    Example: kogpt2 tokenizer rename tokenizer.model --token '<unused7>=리뷰어' --out named.model
             kogpt2 tokenizer rename tokenizer.model --from terms.txt --out named.model
    """
    from kogpt2_gluon.tokens.renaming import parse_renaming, read_renamings, rename_tokens

    _check_out(out, overwrite)
    renamings = [*(parse_renaming(token) for token in tokens), *(read_renamings(listed) if listed else ())]
    named = rename_tokens(model, renamings, out)
    for token, term in renamings:
        click.echo(f"{token} -> {term!r}, id {named.pieces.index(term)}")
    click.echo(f"{out}: {named.vocab_size:,} tokens as before, {len(named.unused)} unused left")
    click.echo(f"sha256 {named.sha256[:16]}...; shards made with the old file do not fit it: make them again")


@tokenizer.command(no_args_is_help=True)
@click.argument("model", type=ANY_PATH)
@click.argument("corpora", nargs=-1, required=True, type=ANY_PATH)
@click.option("--against", multiple=True, type=ANY_PATH, help="Another model to compare; may be given many times.")
@click.option("--split", default="auto", show_default=True, type=click.Choice(["auto", "train", "test"]))
@click.option("--sample-mb", default=20.0, show_default=True, help="Use about this much of each corpus, drawn by hash.")
@json_output
def report(
    model: Path, corpora: tuple[Path, ...], against: tuple[Path, ...], split: str, sample_mb: float, as_json: bool
) -> None:
    """Measure how well a tokenizer suits each corpus: tokens per word, unknowns, what its ids decode to.

    \b
    Example: kogpt2 tokenizer report tokenizer.model wiki reviews --against other.model
    """
    from kogpt2_gluon.tokens.report import format_report, report_tokenizers

    found = report_tokenizers([model, *against], corpora, split, sample_mb)
    if as_json:
        echo_json(found, indent=1)
    else:
        click.echo(format_report(found))


def _refuse_of_sentencepiece(context: click.Context) -> None:
    """Raises RecipeError if an option was given that byte-level BPE has no use for."""
    for name in ("character_coverage", "profile", "keep_newlines"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise RecipeError(f"{option}: byte-level BPE keeps every character and line end as it is; leave it out")


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise RecipeError(f"{out}: exists, and shards may depend on it; choose another --out, or give --overwrite")
