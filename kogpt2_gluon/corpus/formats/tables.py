"""Tables of columns: Parquet, and Arrow or Feather files and streams, read by pyarrow.

pyarrow is optional, so it is imported where a table is read. Row groups and record batches are read one at a time, and
of them the columns that are wanted alone. A block holds some rows as an Arrow stream; its places are rows.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.containers import Container, Records
from kogpt2_gluon.corpus.formats.json_array import Record
from kogpt2_gluon.corpus.formats.paths import Path, close_names, quoted
from kogpt2_gluon.corpus.records import Block, Rejection
from kogpt2_gluon.errors import DataError, RecipeError

FORMS = ("parquet", "arrow", "arrow-stream")
_COLUMNS_SHOWN = 20


def import_pyarrow() -> Any:
    """Returns pyarrow. RecipeError if it is not installed, or does not work with this NumPy."""
    try:
        import pyarrow

        return pyarrow
    except ModuleNotFoundError:
        raise RecipeError("Parquet and Arrow need pyarrow: pip install 'kogpt2-gluon[tables]'") from None
    except ImportError as error:
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(f"pyarrow cannot be imported ({reason}): pip install 'kogpt2-gluon[tables]'") from None


class Table(Container):
    """The rows of a table, with the columns that are wanted.

    Parameters
    ----------
    form : str
        One of FORMS.
    paths : list of Path
        What is wanted of a row.
    """

    seeks = True

    def __init__(self, form: str, paths: list[Path]) -> None:
        self.form, self._paths = form, paths

    def _cut(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        pyarrow = import_pyarrow()
        row = 0
        parts: list[Any] = []
        with _explained(pyarrow, name), _seekable(stream) as file:
            for batch in self._batches(pyarrow, name, file, offset):
                if isinstance(batch, int):  # rows that were passed over
                    row += batch
                    continue
                _check_places(pyarrow, batch)
                # Where a part ends depends on its batch alone, and so a block on nothing but where it begins.
                step = max(1, batch.num_rows * records.BLOCK_BYTES // max(1, batch.nbytes))
                for begin in range(0, batch.num_rows, step):
                    part = batch.slice(begin, step)
                    if row >= offset:
                        parts.append(part)
                    row += part.num_rows
                    if sum(part.nbytes for part in parts) >= records.BLOCK_BYTES:
                        yield _block(pyarrow, name, parts, row)
                        parts = []
            if parts:
                yield _block(pyarrow, name, parts, row)

    def _batches(self, pyarrow: Any, name: str, file: BinaryIO, offset: int) -> Iterator[Any]:
        """Yields the record batches; a row group that ends before row `offset` is a number, that of its rows."""
        if self.form == "parquet":
            import pyarrow.parquet as parquet

            table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=records.BLOCK_BYTES)
            columns = self._choose_columns(name, table.schema_arrow)
            row = 0
            for group in range(table.num_row_groups):
                about = table.metadata.row_group(group)
                row += about.num_rows
                if row <= offset:
                    yield about.num_rows
                    continue
                size = max(1, about.total_byte_size)
                rows = min(1 << 16, max(1, about.num_rows * records.BLOCK_BYTES // size))
                yield from table.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)
            return
        file.seek(0)
        begin = file.read(8)
        file.seek(0)
        if begin.startswith(b"FEA1"):
            raise DataError(f"{name}: a Feather file of version 1; write it again as version 2, or as Parquet")
        is_file = begin.startswith(b"ARROW1")
        # The schema comes first, because columns are chosen by their numbers.
        opened = pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream
        reader = opened(file)
        columns = self._choose_columns(name, reader.schema)
        numbers = sorted(reader.schema.get_field_index(column) for column in columns)
        file.seek(0)
        reader = opened(file, options=pyarrow.ipc.IpcReadOptions(included_fields=numbers, use_threads=False))
        if is_file:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from reader

    def _choose_columns(self, name: str, schema: Any) -> list[str]:
        chosen = list(dict.fromkeys(path.column(schema.names) for path in self._paths))
        for column in chosen:
            if schema.names.count(column) == 1:
                continue
            if column in schema.names:
                raise DataError(f"{name}: more than one column is called {column!r}; rename the others")
            shown = ", ".join(f"{field.name}: {describe_type(field.type)}" for field in list(schema)[:_COLUMNS_SHOWN])
            close = close_names(column, schema.names)
            hint = f"; did you mean --documents {quoted(close[0])}?" if close else ""
            raise DataError(f"{name}: a table without a column {column!r}; its columns: {shown}{hint}")
        return chosen

    @staticmethod
    def records(block: Block) -> Records:
        """Yields the rows, each as a mapping of the columns that are wanted; ``bad_utf8`` for those not in UTF-8."""
        pyarrow = import_pyarrow()
        row = 0
        with pyarrow.ipc.open_stream(block.data) as reader:
            for batch in reader:
                yield from _rows(batch, block, row)
                row += batch.num_rows


def _rows(batch: Any, block: Block, first: int) -> Records:
    """Yields the rows of a batch, the first of which has that number in its block."""
    names = batch.schema.names
    line, offset = block.line + first, block.offset + first
    try:
        columns = [_values(column) for column in batch.columns]
    except UnicodeDecodeError:
        yield from _one_by_one(batch, block.source, line, offset)
        return
    for row, values in enumerate(zip(*columns)):
        yield Record(dict(zip(names, values)), line + row, offset + row)


def _one_by_one(batch: Any, source: str, line: int, offset: int) -> Records:
    for row in range(batch.num_rows):
        part = batch.slice(row, 1)
        try:
            values = [_values(column)[0] for column in part.columns]
        except UnicodeDecodeError:
            yield Rejection("bad_utf8", source, line + row, offset + row, (offset + row,))
        else:
            yield Record(dict(zip(batch.schema.names, values)), line + row, offset + row)


def _values(column: Any) -> list[Any]:
    """Returns the values of a column. A text without its type (binary) is decoded. UnicodeDecodeError for bad UTF-8."""
    values: list[Any] = column.to_pylist()
    if any(isinstance(value, bytes) for value in values[:1000]):
        values = [value.decode() if isinstance(value, bytes) else value for value in values]
    return values


def _block(pyarrow: Any, name: str, parts: list[Any], end: int) -> Block:
    """Returns the block of some rows that end before row `end`: an Arrow stream.

    A dictionary would come with every block, so its values take its place.
    """
    rows = sum(part.num_rows for part in parts)
    sink = io.BytesIO()
    is_dictionary = pyarrow.types.is_dictionary
    if any(map(is_dictionary, parts[0].schema.types)):
        parts = [
            pyarrow.RecordBatch.from_arrays(
                [column.dictionary_decode() if is_dictionary(column.type) else column for column in part.columns],
                names=part.schema.names,
            )
            for part in parts
        ]
    with pyarrow.ipc.new_stream(sink, parts[0].schema) as writer:
        for part in parts:
            writer.write_batch(part)
    return Block(name, end - rows + 1, end - rows, end, sink.getvalue(), end + 1)


@contextmanager
def _explained(pyarrow: Any, name: str) -> Iterator[None]:
    """Makes errors of pyarrow those of a damaged file."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: damaged, or not such a table ({reason})") from None


def _check_places(pyarrow: Any, batch: Any) -> None:
    """Raises ArrowInvalid if a value of a batch would lie outside of its memory: pyarrow does not look by itself.

    Texts that are not in UTF-8 are no fault here: their rows alone are left out.
    """
    for column in batch.columns:
        if pyarrow.types.is_dictionary(column.type):
            column.validate()
            nothing = pyarrow.nulls(len(column.dictionary))
            pyarrow.DictionaryArray.from_arrays(column.indices, nothing).validate(full=True)
            column = column.dictionary
        as_bytes = _as_bytes(pyarrow, column.type)
        (column if as_bytes == column.type else column.view(as_bytes)).validate(full=True)


def _as_bytes(pyarrow: Any, kind: Any) -> Any:
    """Returns a type of the same layout whose texts are bytes."""
    types = pyarrow.types
    if types.is_string(kind):
        return pyarrow.binary()
    if types.is_large_string(kind):
        return pyarrow.large_binary()
    if types.is_list(kind):
        return pyarrow.list_(_as_bytes(pyarrow, kind.value_type))
    if types.is_large_list(kind):
        return pyarrow.large_list(_as_bytes(pyarrow, kind.value_type))
    if types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return pyarrow.struct([(field.name, _as_bytes(pyarrow, field.type)) for field in fields])
    return kind


@contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Yields the stream, or a copy on disk if it is unpacked while it is read: a table is read from its end."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
        yield copy


def describe_type(kind: Any) -> str:
    """Returns what values of an Arrow type are, in words."""
    words = str(kind)
    if words.startswith("dictionary"):
        return describe_type(kind.value_type)
    if words in ("string", "large_string", "string_view"):
        return "a text"
    if "list" in words.split("<")[0]:
        inner = describe_type(kind.value_type)
        return "a list of texts" if inner == "a text" else f"a list, each {inner}"
    if words.startswith("struct"):
        return "an object with " + ", ".join(kind.field(number).name for number in range(min(5, kind.num_fields)))
    if words == "bool":
        return "true or false"
    if words.startswith(("int", "uint", "float", "double", "halffloat", "decimal")):
        return "a number"
    return words
