"""Damage to the structure of tables: CSV and Parquet, among them the manifest."""

import json
import random
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from json_damage import bad_value, damage_json_text

from featurepipe.manifest.manifest_file import CHECKSUM_KEY, DESCRIPTION_KEY, column_checksum


def damage_csv(rng: random.Random, path: Path, donor: Path) -> str:
    """Damage cells, rows or columns of a CSV file; what was done."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    what = rng.choice(("cell", "cell", "header", "drop column", "double column", "drop row",
                       "double row", "ragged", "no rows", "no header", "empty lines", "quote",
                       "huge", "encoding", "separator", "swap columns", "donor"))  # fmt: skip
    encoding, separator = "utf-8", ","
    match what:
        case "cell" | "header":
            row = 0 if what == "header" else row
            rows[row][column % len(rows[row])] = _cell(rng)
        case "drop column":
            rows = [line[:column] + line[column + 1 :] for line in rows]
        case "double column":
            rows = [[*line, line[column % len(line)]] for line in rows]
        case "swap columns":
            rows = [line[::-1] for line in rows]
        case "drop row":
            del rows[row]
        case "double row":
            rows.append(rows[row])
        case "ragged":
            rows[row] = rng.choice((rows[row] * 9, rows[row][:1], []))
        case "no rows":
            rows = rows[:1]
        case "no header":
            rows = rows[1:]
        case "empty lines":
            rows[row:row] = [[]] * 99
        case "quote":
            rows[row][0] = '"' + rows[row][0]
        case "huge":
            rows[row] = ["x" * 3_000_000] * len(rows[0])
        case "donor":
            rows += [line.split(",") for line in donor.read_text().splitlines()]
        case "encoding":
            encoding = rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp037"))
        case "separator":
            separator = rng.choice((";", "\t", "\0", "|"))
    text = "\n".join(separator.join(line) for line in rows) + "\n"
    path.write_text(text, encoding=encoding, errors="replace")
    return what


def damage_parquet(rng: random.Random, path: Path, donor: Path) -> str:
    """Damage columns, types or the description of a Parquet file; what was done."""
    table = pq.read_table(path)
    what = rng.choice(("drop", "rename", "type", "nulls", "empty", "doubled", "cell", "order",
                       "description", "description", "description", "no description", "donor",
                       "same name", "huge"))  # fmt: skip
    number = rng.randrange(len(table.column_names))
    name, about = table.column_names[number], _metadata(path)
    match what:
        case "drop":
            table = table.drop_columns([name])
        case "rename" | "same name":
            new = rng.choice(("", "x", "../x", "\x1b[2J", "id", "x" * 9999))
            new = rng.choice(table.column_names) if what == "same name" else new
            names = [*table.column_names[:number], new, *table.column_names[number + 1 :]]
            table = table.rename_columns(names)
        case "type":
            table = table.set_column(number, name, _other_column(rng, len(table)))
        case "nulls":
            table = table.set_column(number, name, pa.nulls(len(table), table.schema.types[number]))
        case "empty":
            table = table.slice(0, 0)
        case "doubled":
            table = pa.concat_tables([table, table])
        case "order":
            table = table.take(rng.sample(range(len(table)), len(table)))
        case "cell" | "huge":
            cells = table[name].to_pylist()
            new = "x" * 5_000_000 if what == "huge" else _cell(rng)
            if not isinstance(cells[0], list):
                cells = [str(cell) for cell in cells]
            cells[rng.randrange(len(cells))] = [new, new] if isinstance(cells[0], list) else new
            column = pa.array(cells)
            table = table.set_column(number, name, column)
        case "donor":
            table = table.replace_schema_metadata(_metadata(donor))
            return _write(rng, table, path, what)
        case "description" if DESCRIPTION_KEY in about:
            text = about[DESCRIPTION_KEY].decode()
            text, done = damage_json_text(rng, text, text)
            about[DESCRIPTION_KEY] = text.encode(errors="replace")
            table = table.replace_schema_metadata(about)
            return _write(rng, table, path, done)
        case _:
            table = table.replace_schema_metadata(None)
            return _write(rng, table, path, what)
    return _write(rng, table.replace_schema_metadata(about), path, f"{what} {name}")


def _write(rng: random.Random, table: Any, path: Path, done: str) -> str:
    if rng.random() < 0.7:
        table, mended = _mend(table)
        done += mended
    pq.write_table(table, path)
    return done


def _metadata(path: Path) -> dict[bytes, bytes]:
    stored = pq.read_metadata(path).metadata or {}
    return {key: value for key, value in stored.items() if key != b"ARROW:schema"}


def _mend(table: Any) -> tuple[Any, str]:
    """Make the checksums of a manifest fit again, so that damage gets past them."""
    about = dict(table.schema.metadata or {})
    try:
        described = json.loads(about[DESCRIPTION_KEY])
        columns = [column.combine_chunks() for column in table.itercolumns()]
        checksums = [column_checksum(column) for column in columns]
        names = [name.removeprefix("table.") for name in table.column_names[1:]]
        described |= {"n_rows": len(table), "columns": names}
        described["groups"] = [{"first_id": columns[0][0].as_py(), "checksums": checksums}]
    except Exception:
        if DESCRIPTION_KEY not in about:
            return table, ""
        # Its own checksum fits even so.
        text = about[DESCRIPTION_KEY]
    else:
        text = json.dumps(described).encode()
    mended = {DESCRIPTION_KEY: text, CHECKSUM_KEY: str(zlib.crc32(text)).encode()}
    return table.replace_schema_metadata(mended), "; checksums mended"


def _other_column(rng: random.Random, n: int) -> Any:
    return rng.choice((
        pa.array(range(n)), pa.array([0.5] * n), pa.array([b"\xff\xfe"] * n), pa.array([True] * n),
        pa.array([["a", None]] * n), pa.array([{"a": 1}] * n), pa.array([float("nan")] * n),
        pa.array(["same"] * n), pa.array(["x"] * n).dictionary_encode(), pa.array([[["a"]]] * n),
        pa.array([2**62] * n, pa.timestamp("ns")), pa.array(["x"] * n, pa.large_string()),
    ))  # fmt: skip


def _cell(rng: random.Random) -> str:
    value = bad_value(rng)
    text = (
        value
        if isinstance(value, str)
        else rng.choice((str(value)[:400], "a|b", "|", "a,b", "\r\n"))
    )
    return text.encode(errors="replace").decode()
