"""Cleaning, stage by stage: sources -> blocks -> [worker processes] -> parts on disk -> the corpus.

The main process reads and cuts sources into blocks; workers parse, filter and hash them; their results are
written in order to parts, which survive an interruption. Then `Assembly` drops duplicates and writes the corpus. The
corpus is the same, byte for byte, for any number of processes and however often the cleaning was interrupted.

Memory is a few blocks for each process, and one part with its hashes at the end: it does not grow with the sources.
Disk is twice the corpus while it is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Callable

from kogpt2_gluon import __version__
from kogpt2_gluon.corpus.admission import admit
from kogpt2_gluon.corpus.cleaning.assembly import Assembly
from kogpt2_gluon.corpus.cleaning.blocks import BlockCleaner
from kogpt2_gluon.corpus.cleaning.intake import Faults, Intake
from kogpt2_gluon.corpus.cleaning.losses import MAX_DROPPED, Loss, describe_losses, heavy_losses
from kogpt2_gluon.corpus.cleaning.normalize import NORMALISATION
from kogpt2_gluon.corpus.cleaning.options import RULES_VERSION, CleaningOptions, load_options
from kogpt2_gluon.corpus.cleaning.page import render_cleaning
from kogpt2_gluon.corpus.cleaning.parts import Cleaned, PartWriter, Place, cleaning_stage, make_plan, read_parts
from kogpt2_gluon.corpus.cleaning.report import BAD_UTF8_FILE, PAGE_FILE, SAMPLES_FILE, CleaningReport, by_frequency
from kogpt2_gluon.corpus.documents import read_blocks
from kogpt2_gluon.corpus.encodings import AUTO
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.records import Block
from kogpt2_gluon.corpus.sources import Source, choose_sources
from kogpt2_gluon.corpus.store import CORPUS_FILE, SPLITS, CorpusWriter
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.process_pool import start_processes
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import replace_folder, write_file
from kogpt2_gluon.storage.s3_url import is_s3_url, split_s3_url
from kogpt2_gluon.storage.work_folder import open_work, work_folder
from kogpt2_gluon.wording import counted, gigabytes

MANY_SOURCES = 1000  # a look at more is announced
Progress = Callable[[int, int], None]

_cleaner: BlockCleaner | None = None  # in a worker process, set when it starts


def clean(
    sources: Sequence[str | Path],
    out: Path,
    documents: str,
    test_share: float = 0.01,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
    options: CleaningOptions | None = None,
    processes: int = 1,
    restart: bool = False,
    split: str = "hash",
    say: Callable[[str], None] | None = None,
    encoding: str = AUTO,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip_damaged: bool = False,
    max_dropped: float = MAX_DROPPED,
    keep_templates: Sequence[str] = (),
    drop_templates: Sequence[str] = (),
) -> CleaningReport:
    """Cleans text sources into the corpus folder `out`, which appears whole, its report page included, or not at all.

    Parameters
    ----------
    sources : sequence of str or Path
        Files, folders, or ``s3://bucket/prefix``, plain or compressed.
    documents : str
        What a document is: a word of `kogpt2_gluon.corpus.formats`, or the name of a JSON field.
    test_share : float
        About this share of the documents becomes the test split, chosen by the hash of their text; not used with
        `split` ``folder``.
    progress : callable
        Called with (bytes read, all bytes), as stored.
    overwrite : bool
        Replace a corpus in `out`; nothing else ever is.
    options : CleaningOptions
        Which filters do what; by default those of the preset ``default``.
    processes : int
        Worker processes; with 1 everything is done in this one.
    restart : bool
        Start again even if `out` + ``.work`` has the finished parts of an interrupted cleaning; without it the cleaning
        resumes after them.
    split : str
        ``hash``, or ``folder``: a document belongs to the split whose name, ``train`` or ``test``, is that of the
        nearest such folder above its source.
    say : callable
        Called with a short status line at the start of each stage.
    encoding : str
        ``auto``: decided for each file; or one of `kogpt2_gluon.corpus.encodings.ENCODINGS` for all.
    include, exclude : sequence of str
        Patterns of files, as in `choose_sources`.
    skip_damaged : bool
        Go on with the other sources if one is damaged, or is not what `documents` reads; the report names it.
    max_dropped : float
        The largest share of a source's records that may be dropped; see `losses`. 1: any.
    keep_templates, drop_templates : sequence of str
        Names of a wiki's templates of which the first unnamed value stays wherever they are, or nothing does.

    Raises RecipeError for a bad argument, or if the options differ from those of the interrupted cleaning; DataError
    for sources that are missing, damaged, not what `documents` reads, lose more than `max_dropped` (parts and page
    then stay in the work folder), or leave no document; DiskFullError. If sources differ from those of the interrupted
    cleaning, the parts before the first of them are kept.
    """
    if not 0 <= test_share < 1:
        raise RecipeError(f"--test-share {test_share:g}: give a share from 0 to below 1, such as 0.01")
    if not 0 <= max_dropped <= 1:
        raise RecipeError(f"--max-dropped {max_dropped:g}: give a share from 0 to 1, such as 0.5")
    assert processes >= 1 and split in ("hash", "folder"), (processes, split)
    options = load_options(None) if options is None else options
    kind = kind_of(documents)
    templates = {"keep_templates": sorted(keep_templates), "drop_templates": sorted(drop_templates)}
    templates = {name: names for name, names in templates.items() if names}
    if templates:
        kind = kind.with_templates(keep_templates, drop_templates)
    say = say or (lambda words: None)
    files, intake = _take_in(sources, kind, encoding, include, exclude, skip_damaged, say)
    test_sources = [_split_of_source(file) == "test" for file in files] if split == "folder" else None
    _check_out(out, files, overwrite)
    plan = make_plan(files, documents, {**options.to_dict(), **templates}, f"{__version__}, rules {RULES_VERSION}")
    full_disk = partial(_full_disk_named, out, files)  # twice, since the folder may be gone when its block has ended
    with full_disk(), open_work(work_folder(out), cleaning_stage(say), plan, restart) as work, full_disk():
        faults = Faults(work, files, skip_damaged)
        _make_parts(work, files, kind, options, processes, progress, say, faults)
        intake.damaged.update(faults.by_name)
        about: dict[str, Any] = {
            "normalisation": NORMALISATION.replace("NFC", options.normalize.form),
            "options": options.to_dict(),
            "split": split,
            "test_share": test_share if split == "hash" else None,
        }
        about.update(intake.to_dict())
        about.update(templates)
        report = _assemble(work, files, kind, options, test_sources, test_share, about, say)
        report.split, report.test_share, report.intake = split, test_share, intake
        if sum(report.documents.kept.values()):
            _commit(work, out, report, heavy_losses(report, max_dropped, not kind.layout.is_one_line))
    if not sum(report.documents.kept.values()):
        _raise_nothing_left(sources, documents, report)
    return report


# --- reading and filtering


def _take_in(
    arguments: Sequence[str | Path],
    kind: Kind,
    encoding: str,
    include: Sequence[str],
    exclude: Sequence[str],
    skip_damaged: bool,
    say: Callable[[str], None],
) -> tuple[list[Source], Intake]:
    """Returns the sources to read, each looked at, and what became of the others."""
    choice = choose_sources(arguments, include, exclude)
    if len(choice.sources) > MANY_SOURCES:  # seconds on a disk, minutes from S3
        say(f"looking at {len(choice.sources):,} files")
    admission = admit(choice.sources, kind, encoding)
    admission.refused[:0] = choice.faults
    if not (skip_damaged and admission.sources):
        admission.check()
    damaged = {name: str(fault) for name, fault in admission.refused}
    return admission.sources, Intake(choice.passed_over, damaged, admission.notes)


def _make_parts(
    work: Path,
    sources: Sequence[Source],
    kind: Kind,
    options: CleaningOptions,
    processes: int,
    progress: Progress | None,
    say: Callable[[str], None],
    faults: Faults,
) -> None:
    """Fills the work folder with the parts that are still missing."""
    parts = read_parts(work)
    number, place = len(parts), parts[-1].next_place if parts else Place(0)
    if parts:
        say(f"resuming after {number:,} finished parts ({parts[-1].documents_slice.stop:,} documents)")
    writer: PartWriter | None = None
    blocks = _blocks(sources, kind, place, progress, faults)
    try:
        for place, cleaned in _cleaned(blocks, options, kind, processes):
            if writer is not None and writer.is_full:
                writer.commit(place)
                number, writer = number + 1, None
            if writer is None:
                writer = PartWriter(work, number, sources)
            writer.add(place.source, cleaned)
        if writer is not None:
            writer.commit(Place(len(sources)))
    finally:
        blocks.close()
        if writer is not None:
            writer.abandon()


def _blocks(
    sources: Sequence[Source], kind: Kind, place: Place, progress: Progress | None, faults: Faults
) -> Generator[tuple[Place, Block], None, None]:
    """Yields every block from `place` on, and where it begins; of a damaged source, those before the damage."""
    total = sum(source.size for source in sources)
    done = sum(source.size for source in sources[: place.source])

    def on_read(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    start = (place.line, place.offset)
    for number in range(place.source, len(sources)):
        try:
            is_first = start == (1, 0)
            for block in read_blocks(sources[number], kind, on_read, start):
                if is_first:  # its offset is not 0 where an array has a beginning
                    kind.check_opening(block)
                is_first = False
                yield Place(number, block.line, block.offset), block
        except DataError as fault:
            faults.add(sources[number].name, fault)
            done = sum(source.size for source in sources[: number + 1])
        start = (1, 0)


def _cleaned(
    blocks: Iterator[tuple[Place, Block]], options: CleaningOptions, kind: Kind, processes: int
) -> Iterator[tuple[Place, Cleaned]]:
    """Yields every block, cleaned, in order; few are in progress, so that little is read ahead."""
    if processes == 1:
        cleaner = BlockCleaner(options, kind)
        for place, block in blocks:
            yield place, cleaner.clean(block)
        return
    with start_processes(processes, "cleaning", _start_process, (options, kind)) as run:
        yield from run(_clean_block, blocks)


def _start_process(options: CleaningOptions, kind: Kind) -> None:
    global _cleaner
    _cleaner = BlockCleaner(options, kind)


def _clean_block(placed: tuple[Place, Block]) -> tuple[Place, Cleaned]:
    assert _cleaner is not None
    place, block = placed
    return place, _cleaner.clean(block)


# --- writing


def _assemble(
    work: Path,
    sources: Sequence[Source],
    kind: Kind,
    options: CleaningOptions,
    test_sources: Sequence[bool] | None,
    test_share: float,
    about: dict[str, Any],
    say: Callable[[str], None],
) -> CleaningReport:
    """Drops duplicates and writes the corpus into the folder ``corpus`` of the work folder."""
    scratch, folder = work / "scratch", work / "corpus"
    for path in (scratch, folder):
        shutil.rmtree(path, ignore_errors=True)  # left by an interrupted cleaning
        path.mkdir()
    parts = read_parts(work)
    if not parts:  # not one block in all sources
        return CleaningReport(bytes_read=sum(source.size for source in sources))
    assembly = Assembly(parts, sources, kind.layout, scratch)
    say("looking for duplicates")
    assembly.drop_duplicates()
    if options.near_duplicates.enabled:
        say("looking for near duplicates")
        assembly.drop_near_duplicates(options.near_duplicates)
    if options.duplicate_lines.enabled:
        say("looking for lines that documents share")
        assembly.drop_duplicate_lines()
    say("writing the corpus")
    writer = CorpusWriter(folder, kind.layout)
    try:
        assembly.write(writer, test_sources, test_share)
        report = assembly.finish(folder)
        described = [
            {**_described(source), "documents": kind.name, "counts": counted.counts()}
            for source, counted in zip(sources, report.sources)
        ]
        counts = {
            "documents": report.documents.to_dict(),
            "lines": report.lines.to_dict(),
            "changed": dict(sorted(report.changed.items())),
            "left_out": dict(by_frequency(report.left_out)),
        }
        writer.finish({**about, "sources": described, "counts": counts})
    finally:
        writer.close()
    return report


def _commit(work: Path, out: Path, report: CleaningReport, losses: list[Loss]) -> None:
    """Moves the assembled corpus, its page included, to `out`; DataError if a source lost too much."""
    page = render_cleaning(report, out.resolve().name).encode("utf-8", "replace")
    if losses:
        write_file(work / PAGE_FILE, page)
        raise DataError(describe_losses(losses, str(work / PAGE_FILE)))
    # Before anything is moved: a full disk here leaves the assembled corpus where it is.
    (work / "corpus" / PAGE_FILE).write_bytes(page)
    with replace_folder(out) as folder:
        for entry in (work / "corpus").iterdir():
            entry.rename(folder / entry.name)


def _described(source: Source) -> dict[str, Any]:
    """Returns a source for `corpus.json`; its encoding only if it is not UTF-8."""
    encoding = {} if source.encoding == "utf-8" else {"encoding": source.encoding}
    return {"path": source.name, "bytes": source.size, **encoding}


def _raise_nothing_left(sources: Sequence[str | Path], documents: str, report: CleaningReport) -> None:
    dropped = report.documents.dropped
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    hint = f"is --documents {documents} right?"
    if dropped and max(dropped, key=lambda reason: dropped[reason]) == "bad_utf8":
        hint = "the text is not in the encoding that was assumed; name it: --encoding"
    raise DataError(
        f"{', '.join(map(str, sources))}: no document is left of {report.documents.read:,} "
        f"({reasons or 'nothing to read'}); {hint}"
    )


def _full_disk_named(out: Path, sources: Sequence[Source]) -> AbstractContextManager[None]:
    """Turns a full disk into an error that says what a cleaning needs, and what is kept."""
    work = work_folder(out)

    def describe() -> str:
        size = sum(source.size for source in sources)
        kept = read_parts(work) if work.is_dir() else []
        after = f"the same command resumes after {counted(len(kept), 'finished part')}" if kept else "run it again"
        return f"a cleaning needs up to twice its unpacked text ({gigabytes(size)} of sources); make room, then {after}"

    return full_disk_named(work, describe)


# --- checks of the arguments


def _split_of_source(source: Source) -> str:
    """Returns the split whose folder the source is in."""
    for name in reversed(source.name.split("/")[:-1]):
        if name in SPLITS:
            return name
    raise RecipeError(
        f"{source.name}: --split folder, but no folder above it is called train or test; move it or say --split hash"
    )


def _check_out(out: Path, sources: Sequence[Source], overwrite: bool) -> None:
    """Refuses to overwrite anything but a corpus, and to write into a source."""
    if is_s3_url(out):
        url = "s3://{}/{}".format(*split_s3_url(out))
        raise RecipeError(
            f"--out {url}: a corpus is written to a folder; name one, then upload it: kogpt2 files upload FOLDER {url}"
        )
    for folder in (out, work_folder(out)):
        inside = [s.name for s in sources if s.path is not None and folder.resolve() in s.path.resolve().parents]
        if inside:
            raise RecipeError(f"--out {out}: it holds a source, {inside[0]}; choose a folder outside the sources")
    if not out.exists():
        return
    if not out.is_dir():
        raise RecipeError(f"--out {out}: exists and is not a folder")
    entries = sorted(entry.name for entry in out.iterdir())
    if not entries:
        return
    foreign = sorted(set(entries) - {*SPLITS, CORPUS_FILE, BAD_UTF8_FILE, SAMPLES_FILE, PAGE_FILE})
    if CORPUS_FILE not in entries or foreign:
        what = foreign[0] if foreign else f"no {CORPUS_FILE}"
        raise RecipeError(f"--out {out}: a folder that is not just a corpus ({what}); choose another, or empty it")
    if not overwrite:
        raise RecipeError(f"--out {out}: a finished corpus; say --overwrite to replace it, or choose another folder")
