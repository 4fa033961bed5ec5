"""Runs rules again and again over rows, as a schedule would: reads {table, schema, file, functions, rules, from, to} as JSON and writes
{rule: [{at, row}, ...]}.

A run sees the rows that came in its look-back, no later ones. The base functions are computed once and cut by time for each run, which gives
the same as computing them anew while no event has copies further apart than a look-back; the rules' own text is what runs.
"""

import datetime
import json
import sys

import duckdb_kql
from run import declared, fixed, plain, table

# Times that stand in no rule: the begin and the end of what a run sees, replaced in the SQL for each run.
SINCE, NOW = "1901-01-01T00:00:00Z", "1902-01-01T00:00:00Z"
KEPT = ["OnePasswordRows", "OnePasswordEvents_Deduplicated", "OnePasswordActivity"]


def main():
    task = json.load(sys.stdin)
    connection = duckdb_kql.connect()
    table(connection, task["table"], task["schema"], [task["file"]])
    texts, by_name = declared(task["functions"], NOW, task["schema"])
    duckdb_kql.set_functions(texts)
    for name in KEPT:
        connection.execute(f'CREATE TABLE "Kept_{name}" AS {duckdb_kql.query(connection, f"{name}()").sql_query()}')
    seen = f"where IngestedAt > datetime({SINCE}) and IngestedAt <= datetime({NOW})"
    cut = [f"function {name}({by_name[name]['parameters']}) {{\nKept_{name} | {seen}\n}}" for name in KEPT]
    others = [text for one, text in zip(task["functions"], texts) if one["name"] not in KEPT]
    duckdb_kql.set_functions(cut + others)
    begin, end = (datetime.datetime.fromisoformat(task[key]) for key in ("from", "to"))
    results = {}
    for rule in task["rules"]:
        sql = duckdb_kql.query(connection, fixed(rule["query"], NOW, task["schema"], by_name)).sql_query()
        every, back = datetime.timedelta(minutes=rule["every"]), datetime.timedelta(minutes=rule["back"])
        alerts, at = results.setdefault(rule["name"], []), begin + every
        while at <= end:
            text = sql.replace(SINCE, (at - back).isoformat()).replace(NOW, at.isoformat())
            done = connection.execute(text)
            columns = [one[0] for one in done.description]
            alerts += [{"at": at.isoformat(), "row": dict(zip(columns, [plain(cell) for cell in row]))} for row in done.fetchall()]
            at += every
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
