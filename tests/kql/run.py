"""Runs KQL over rows with DuckDB. Reads {functions, table, worlds: {name: {now, schema, files, queries}}} as JSON and writes
{name: {query: {columns, rows} or {refused}}}.

The clock stands still: `now()` and `ago()` count from the given minute. A row's ingestion time is its TimeGenerated, which is what the data
collection rule makes of it. What is run is the text of the content; `fixed` says all that is said otherwise for DuckDB.
"""

import datetime
import json
import re
import sys
import tempfile

import duckdb_kql

SQL_TYPES = {"string": "VARCHAR", "datetime": "TIMESTAMP", "dynamic": "JSON", "int": "INTEGER", "long": "BIGINT"}
NAMED = re.compile(r"\b(\w+)\(((?:\w+=[\w*\"]+(?:, )?)+)\)")


def parameters(one):
    """Name and default of each parameter of a function."""
    found = re.findall(r"(\w+)\s*:\s*\w+(?:\s*=\s*((?:[^,()]|\([^()]*(?:\[\])?\))+))?", one["parameters"])
    return {name: default.strip() for name, default in found}


def positional(text, functions):
    """Named arguments by position, with the defaults before them written out: `f(b=1)` is `f(<default of a>, 1)`."""

    def rewritten(call):
        one = functions.get(call[1])
        if one is None:
            return call[0]
        given = dict(pair.split("=", 1) for pair in call[2].split(", "))
        names = parameters(one)
        last = max(list(names).index(name) for name in given)
        return f"{call[1]}({', '.join(given.get(name, default) for name, default in list(names.items())[: last + 1])})"

    return NAMED.sub(rewritten, text)


def fixed(text, now, schema, functions=None):
    """What DuckDB cannot say, said otherwise: the clock, the ingestion time, named arguments, and columns by name, which are there or not."""
    moment = f"datetime({now})"
    text = re.sub(r"\bago\(([^()]*)\)", rf"({moment} - (\1))", text)
    text = re.sub(
        r'\bcolumn_ifexists\("(\w+)", ((?:[^()]|\([^()]*\))*)\)',
        lambda found: found[1] if found[1] in schema else found[2],
        text,
    )
    # DuckDB has no such function; without a filter its answer does not matter.
    text = re.sub(r"\bhas_any_ipv4_prefix\([^()]*\)", "false", text)
    text = text.replace("now()", moment).replace("ingestion_time()", "TimeGenerated")
    return positional(text, functions or {})


def cell(value, kind):
    """A value as the ingestion leaves it in a column of this type: what does not fit is empty."""
    if value is None:
        return "" if kind == "string" else None
    if kind == "datetime":
        try:
            moment = datetime.datetime.fromisoformat(value).astimezone(datetime.timezone.utc)
        except (TypeError, ValueError):
            return None
        return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    if kind == "string" and not isinstance(value, str):
        return json.dumps(value)
    if kind == "int" and not isinstance(value, int):
        return None
    return value


def table(connection, name, schema, files):
    """All rows as one JSON file for DuckDB's own reader: row by row takes ten times as long."""
    columns = ", ".join(f"'{column}': '{SQL_TYPES[kind]}'" for column, kind in schema.items())
    with tempfile.NamedTemporaryFile("w", suffix=".ndjson", encoding="utf-8") as out:
        for file in files:
            with open(file, encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    out.write(json.dumps({column: cell(row.get(column), kind) for column, kind in schema.items()}) + "\n")
        out.flush()
        source = f"read_json('{out.name}', format = 'newline_delimited', columns = {{{columns}}})"
        connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM {source}')


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value if isinstance(value, (str, int, float, bool, dict, type(None))) else str(value)


def declared(functions, now, schema):
    """The functions as DuckDB's translator takes them."""
    by_name = {one["name"]: one for one in functions}
    return [f"function {one['name']}({one['parameters']}) {{\n{fixed(one['body'], now, schema, by_name)}\n}}" for one in functions], by_name


def answers(task, world, translated):
    connection = duckdb_kql.connect()
    table(connection, task["table"], world["schema"], world["files"])
    texts, by_name = declared(world.get("functions", task["functions"]), world["now"], world["schema"])
    duckdb_kql.set_functions(texts)
    for name, query in world["queries"].items():
        try:
            text = fixed(query, world["now"], world["schema"], by_name)
            key = json.dumps([text, texts, world["schema"]])
            if key not in translated:
                translated[key] = duckdb_kql.query(connection, text).sql_query()
            done = connection.execute(translated[key])
            columns = [one[0] for one in done.description]
            yield name, {"columns": columns, "rows": [plain(row) for row in done.fetchall()]}
        except Exception as error:  # what it cannot run is an answer: the test names each
            yield name, {"refused": f"{type(error).__name__}: {error}".split("\n")[0]}


def main():
    task, translated = json.load(sys.stdin), {}
    json.dump({name: dict(answers(task, world, translated)) for name, world in task["worlds"].items()}, sys.stdout)


if __name__ == "__main__":
    main()
