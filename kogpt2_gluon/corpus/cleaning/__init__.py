"""Cleaning: raw text sources -> a corpus folder of normalised, distinct documents in a train and a test split.

`clean` does it; `options` lists the filters, `pipeline` describes the stages. A document is dropped if nothing is left
of it, if it could not be read, if a filter drops it, or if an equal or nearly equal one came before. Every loss is
counted under its reason: read = kept + the sum of the reasons, for documents and for lines, in total and by source.
"""

from kogpt2_gluon.corpus.cleaning.assembly import split_of
from kogpt2_gluon.corpus.cleaning.normalize import normalize_line
from kogpt2_gluon.corpus.cleaning.options import CleaningOptions, load_options, presets
from kogpt2_gluon.corpus.cleaning.pipeline import clean
from kogpt2_gluon.corpus.cleaning.report import BAD_UTF8_FILE, PAGE_FILE, SAMPLES_FILE, CleaningReport

__all__ = [
    "BAD_UTF8_FILE",
    "PAGE_FILE",
    "SAMPLES_FILE",
    "CleaningOptions",
    "CleaningReport",
    "clean",
    "load_options",
    "normalize_line",
    "presets",
    "split_of",
]
