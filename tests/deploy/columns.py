"""The one list of columns: what rows are made of (src/flow/decode.rs), the documents of docs/azure, and the templates."""
import json
import re

TABLE, STREAM = "OnePasswordEventLogs_CL", "Custom-OnePasswordEventLogs_CL"
KINDS = {"Text": "string", "DateTime": "datetime", "Int": "int", "Dynamic": "dynamic"}
# Of no event's field: the rule's, nobody's, and the name of the endpoint called.
OWN = [("TimeGenerated", "datetime"), ("SourceSystem", "string"), ("log_source", "string")]
# Those that the table has, and of ours those that it lacks.
WRITTEN = "[concat(variables('kept'), variables('missing'))]"
# Older tables lack these: the vendor's connector had 28 columns until version 3.0.4.
NEWER = ["account_uuid", "actor_type", "actor_account_uuid", "user_type", "user_account_uuid"]


def of_rows(source):
    """Name and type of each column, in order, from the macro call in decode.rs."""
    block = source.split("columns! {\n", 1)[1].split("\n}", 1)[0]
    found = re.findall(r'"\w+" => "(\w+)" (\w+),', block)
    return OWN + [(name, KINDS[kind]) for name, kind in found]


def declared(columns):
    return [(one["name"], one["type"].lower()) for one in columns]


def nested(template, part):
    """The template of a module by a part of its name."""
    return next(one["properties"]["template"] for one in template["resources"] if part in one.get("name", ""))


def table_of(template):
    """The template that writes the table, which is in the module of the workspace."""
    return nested(nested(template, "-workspace-"), "-table-")


def check(template, rows, documents):
    """`rows` is the text of decode.rs, `documents` the parsed table.json and rule.json."""
    wanted = of_rows(rows)
    sent = wanted[2:]
    lists = {"docs/azure/table.json": (declared(documents[0]["properties"]["schema"]["columns"]), wanted)}
    lists["docs/azure/rule.json"] = (declared(documents[1]["properties"]["streamDeclarations"][STREAM]["columns"]), sent)
    table, rule = table_of(template), nested(template, "-rule-")
    lists["the table"] = (declared(table["variables"]["columns"]), wanted)
    rule = next(one for one in rule["resources"] if one["type"].endswith("dataCollectionRules"))["properties"]
    lists["the stream"] = (declared(rule["streamDeclarations"][STREAM]["columns"]), sent)
    found = []
    for where, (has, should) in lists.items():
        found += [f"{where} lacks {name} {kind}" for name, kind in should if (name, kind) not in has]
        found += [f"{where} has {name} {kind}, rows have not" for name, kind in has if (name, kind) not in should]
        if sorted(has) == sorted(should) and has != should:
            found.append(f"{where} has the columns in another order")
        if len(set(has)) != len(has):
            found.append(f"{where} has a column twice")
    schema = table["variables"]["schema"]["schema"]
    tables = [one["name"] for one in table["resources"] if one["type"].endswith("/tables")]
    if schema["name"] != TABLE or schema["columns"] != WRITTEN or len(tables) != 1 or f"'{TABLE}'" not in tables[0]:
        found.append("the table has another name or other columns")
    # Azure takes a table's plan from whoever writes it: a deployment would undo what was chosen, and once a week only.
    written = {"the template": table, "docs/azure/table.json": documents[0]}
    found += [f"{where} sets the plan of a table that may be there" for where, one in written.items() if '"plan"' in json.dumps(one)]
    return found + flow(rule)


def flow(rule):
    streams = [name for one in rule["dataFlows"] for name in [*one["streams"], one["outputStream"]]]
    return [f"the rule names the stream {name}, rows go to {STREAM}" for name in [*streams, *rule["streamDeclarations"]] if name != STREAM]


def count(template):
    return len(table_of(template)["variables"]["columns"])


def documents(root):
    return [json.loads((root / "docs/azure" / name).read_text()) for name in ("table.json", "rule.json")]
