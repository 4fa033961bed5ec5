"""The table: a PUT drops every column that it does not list, so what is there has to be listed too."""
import copy

import pytest
from world import OLDER, ROOT, TABLE, deployed, every_module, of_type, template

import columns

FOREIGN = [
    {"name": "ticket_s", "type": "string", "description": "Ours.", "isDefaultDisplay": True, "isHidden": False},
    {"name": "risk", "type": "real", "description": None, "displayName": "", "isDefaultDisplay": True, "isHidden": False},
    {"name": "Site", "type": "guid", "displayName": "Site", "dataTypeHint": "guid", "isDefaultDisplay": False, "isHidden": False},
]
# Of every table: https://learn.microsoft.com/azure/azure-monitor/logs/log-standard-columns
BUILT_IN = ["TenantId", "Type", "_ResourceId", "_SubscriptionId", "_ItemId", "UniqueId", "Title", "id"]


def put(there=None, **choice):
    """What is put to the table: its properties."""
    found = of_type(deployed(there=there, **choice).resources, "OperationalInsights/workspaces/tables")
    assert len(found) == 1
    return found[0]["properties"]


def with_columns(*more):
    there = copy.deepcopy(OLDER)
    there[TABLE]["schema"]["columns"] += copy.deepcopy(list(more))
    return there


def as_azure_tells_it(properties):
    """A table that was put, read back: types in lower case, and what Azure adds."""
    read = copy.deepcopy(properties)
    for one in read["schema"]["columns"]:
        one.update(type=one["type"].lower(), isHidden=False, isDefaultDisplay=True)
    return {TABLE: read}


def named(properties):
    return {one["name"]: one for one in properties["schema"]["columns"]}


def test_an_older_table_gets_columns_and_keeps_its_retention():
    made = put(table="addColumns")
    assert list(made) == ["schema"] and len(made["schema"]["columns"]) == 33


def test_a_table_with_columns_of_others_keeps_them():
    made = named(put(with_columns(*FOREIGN), table="addColumns"))
    assert len(made) == 36
    assert made["ticket_s"] == {"description": "Ours.", "name": "ticket_s", "type": "string"}
    assert made["risk"] == {"name": "risk", "type": "real"}
    assert made["Site"] == {"dataTypeHint": "guid", "displayName": "Site", "name": "Site", "type": "guid"}


def test_a_second_deployment_puts_the_same_table():
    first = put(with_columns(*FOREIGN), table="addColumns")
    second = put(as_azure_tells_it(first), table="addColumns")
    assert [one["name"] for one in second["schema"]["columns"]] == [one["name"] for one in first["schema"]["columns"]]
    assert put(as_azure_tells_it(second), table="addColumns") == second


def test_a_column_that_both_have_stays_as_the_table_has_it():
    wider = {"name": "aux_id", "type": "long", "isHidden": False}
    made = put(with_columns(wider), table="addColumns")
    assert named(made)["aux_id"] == {"name": "aux_id", "type": "long"}
    assert named(put())["aux_id"]["type"] == "int"


def test_no_column_is_there_twice_because_of_its_case():
    made = put(with_columns({"name": "Log_Source", "type": "string"}), table="addColumns")
    names = [one["name"].lower() for one in made["schema"]["columns"]]
    assert len(names) == len(set(names)) == 33


def test_what_azure_has_in_every_table_is_not_sent_back():
    made = put(with_columns(*({"name": name, "type": "string"} for name in BUILT_IN)), table="addColumns")
    assert named(made).keys() & set(BUILT_IN) == set() and len(named(made)) == 33


@pytest.mark.parametrize("empty", [{"columns": []}, {}], ids=["no column", "no list"])
def test_a_table_that_tells_no_columns_gets_ours(empty):
    assert len(put({TABLE: {"schema": {"name": "OnePasswordEventLogs_CL", **empty}}}, table="addColumns")["schema"]["columns"]) == 33


def test_to_create_a_table_means_33_columns_whatever_is_there():
    assert put(with_columns(*FOREIGN)) == put(there={}) and len(put(there={})["schema"]["columns"]) == 33


def test_columns_cannot_be_added_to_a_table_that_is_not_there():
    with pytest.raises(LookupError, match="ResourceNotFound"):
        deployed(there={}, table="addColumns")


def test_the_table_is_read_before_anything_is_made():
    # modules/input.bicep, for which everything else waits (test_nothing_is_made_before_the_input_is_looked_at).
    inside = [name for name, made in deployed(table="addColumns").modules.items() if any("-found-" in part for part in made.modules)]
    assert len(inside) == 1 and "-input-" in inside[0]
    assert not any("-found-" in name for name, _ in every_module(deployed()))


def test_another_name_or_less_than_all_columns_is_found():
    for key, value in (("name", "OnePassword_CL"), ("columns", "[variables('missing')]")):
        broken = template()
        columns.table_of(broken)["variables"]["schema"]["schema"][key] = value
        found = columns.check(broken, (ROOT / "src/flow/decode.rs").read_text(), columns.documents(ROOT))
        assert found == ["the table has another name or other columns"]
