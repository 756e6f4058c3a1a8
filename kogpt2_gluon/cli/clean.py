"""The verb `kogpt2 clean`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.options import encoding, patterns
from kogpt2_gluon.cli.paths import FOLDER
from kogpt2_gluon.cli.progress_bar import progress_bar
from kogpt2_gluon.cli.stopping import stoppable
from kogpt2_gluon.corpus.formats import describe_kinds
from kogpt2_gluon.corpus.formats.fields import TEMPLATE_PREFIX


@click.command(no_args_is_help=True)
@click.argument("sources", nargs=-1, required=True)
@click.option("--out", required=True, type=FOLDER, help="Folder of the corpus.")
@click.option(
    "--documents",
    metavar="KIND",
    help=f"What a document is. {describe_kinds()}",
)
@click.option(
    "--template",
    metavar="TEXT",
    help="Instead of --documents: fields of a record put together, such as '{title}\\n{text}'.",
)
@click.option("--filters", help="YAML file of filters, or a preset: default, web, lm_kor.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a filter's option; repeatable.")
@click.option("--processes", default=0, type=click.IntRange(min=0), help="Cleaning processes; 0: one a core.")
@click.option("--test-share", type=float, help="Share of documents held out, by hash.  [default: 0.01]")
@click.option(
    "--split",
    default="hash",
    show_default=True,
    type=click.Choice(["hash", "folder"]),
    help="Hold out documents by the hash of their text, or those in a folder test/ (the others: train/).",
)
@encoding
@patterns
@click.option("--skip-damaged", is_flag=True, help="Go on without sources that cannot be read; the report names them.")
@click.option(
    "--max-dropped",
    default=0.5,
    show_default=True,
    type=float,
    help="Largest share of a source's records that may be dropped, else exit code 3. Redirects, blank lines and "
    "duplicates do not count. 1: any.",
)
@click.option(
    "--keep-template",
    multiple=True,
    metavar="NAME",
    help="With wikipedia: keep the first value of this template, wherever it is; repeatable.",
)
@click.option(
    "--drop-template",
    multiple=True,
    metavar="NAME",
    help="With wikipedia: drop this template, even amid a sentence; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace a finished corpus at --out.")
@click.option("--restart", is_flag=True, help="Start again instead of resuming an interrupted cleaning.")
def clean(
    sources: tuple[str, ...],
    out: Path,
    documents: str | None,
    template: str | None,
    filters: str | None,
    overrides: tuple[str, ...],
    processes: int,
    test_share: float | None,
    split: str,
    encoding: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    skip_damaged: bool,
    max_dropped: float,
    keep_template: tuple[str, ...],
    drop_template: tuple[str, ...],
    overwrite: bool,
    restart: bool,
) -> None:
    """Raw text -> corpus: normalise, filter, drop empty and duplicate documents, split off a held-out part.

    SOURCES are files, folders or s3://bucket/prefix: text, JSON, tables or dumps, also as .gz, .bz2, .xz or .zst. What
    a file is, its content decides. In folders, names that begin with . or _ and empty files are passed over. A PATTERN
    fits a file's name, or its path below the folder.

    After an interruption, a full disk or the repair of a damaged file the same command resumes. OUT/cleaning.html shows
    what was dropped and why, OUT/dropped.jsonl has samples of it. If a source loses more than half of its records, or
    all, no corpus is written and the exit code is 3: see --max-dropped.

    \b
    Example: kogpt2 clean reviews.txt --documents line --out corpus --test-share 0.02
             kogpt2 clean kowiki-latest-pages-articles.xml.bz2 --documents wikipedia --filters web --out corpus
             kogpt2 clean news.parquet --template '{title}\\n{text}' --out corpus
             kogpt2 clean s3://bucket/news --documents text --set near_duplicates=true --out corpus
    """
    from kogpt2_gluon.corpus.cleaning import PAGE_FILE, load_options
    from kogpt2_gluon.corpus.cleaning import clean as run
    from kogpt2_gluon.corpus.cleaning.parts import has_parts
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.machine.limits import available_cores
    from kogpt2_gluon.storage.work_folder import work_folder

    if split == "folder" and test_share is not None:
        raise RecipeError(
            "--test-share: with --split folder the folders say what is held out; leave one of the two out"
        )
    if (documents is None) == (template is None):
        raise RecipeError("say what a document is: --documents KIND, or --template TEXT for fields put together")
    if documents is None:
        documents = f"{TEMPLATE_PREFIX}{template}"
    options = load_options(filters, overrides)
    with stoppable(lambda: has_parts(work_folder(out)), "part"), progress_bar("cleaning") as bar:
        report = run(
            sources,
            out,
            documents,
            0.01 if test_share is None else test_share,
            progress=bar.show,
            overwrite=overwrite,
            options=options,
            processes=processes or available_cores(),
            restart=restart,
            split=split,
            say=bar.say,
            encoding=encoding,
            include=include,
            exclude=exclude,
            skip_damaged=skip_damaged,
            max_dropped=max_dropped,
            keep_templates=keep_template,
            drop_templates=drop_template,
        )
    click.echo(report.summary())
    click.echo(f"{out / PAGE_FILE}: what was dropped and why, on one page")
