"""The Microsoft Sentinel content, deployed again: with parts switched off between, and under a resource id that Azure gives in another case, it
finds its own rules, searches and workbook again."""
import json
from pathlib import Path

import pytest
from evaluate import GROUP, Deployment
from world import of_type

CONTENT = json.loads((Path(__file__).parents[2] / "deploy/sentinel/sentinel.json").read_text(encoding="utf-8"))
PARTS = ["deployParsers", "deployRules", "deployHunting", "deployWorkbook"]
# guid() reads the case of its input, and Azure gives one id in several: https://github.com/Azure/bicep/issues/20293
OTHER = GROUP["id"].replace("resourceGroups", "resourcegroups").replace("/rg", "/RG")


def ids(template=CONTENT, root=GROUP["id"], workspace="Logs", **given):
    made = Deployment(template, {"workspaceName": workspace, **given}, root=root).resources
    return {(one["type"].lower(), one["name"].lower()) for one in made}


def test_a_second_deployment_finds_what_the_first_one_made():
    assert ids() == ids() and len(ids()) >= 44


@pytest.mark.parametrize("part", PARTS)
def test_a_part_left_out_comes_back_under_its_ids(part):
    everything, without = ids(), ids(**{part: False})
    assert without < everything
    assert ids() == everything


def test_everything_left_out_but_the_functions_comes_back_under_its_ids():
    functions = ids(**{part: False for part in PARTS})
    assert functions < ids() and all("savedsearches" in kind for kind, _ in functions)


def test_the_ids_are_the_same_whatever_the_case_of_the_resource_id():
    assert ids(root=OTHER, workspace="logs") == ids(workspace="LOGS") == ids()


def test_another_salt_gives_other_ids_to_rules_and_to_nothing_else():
    changed = ids() - ids(ruleIdSalt="2")
    assert {kind for kind, _ in changed} == {"microsoft.securityinsights/alertrules"} and len(changed) == len(of_type(
        Deployment(CONTENT, {"workspaceName": "Logs"}).resources, "SecurityInsights/alertRules"))


def test_an_id_made_of_the_bare_resource_id_is_found():
    bare = json.loads(json.dumps(CONTENT).replace("toLower(", "concat("))
    assert ids(bare, root=OTHER) != ids(bare)


@pytest.mark.parametrize("correlation, tag", [("tenant", ""), ("exclude", "#DONT_CORR# "), ("include", "#INC_CORR# ")])
def test_the_choice_about_merging_opens_each_description(correlation, tag):
    made = Deployment(CONTENT, {"workspaceName": "Logs", "correlation": correlation}).resources
    rules = [one["properties"] for one in of_type(made, "SecurityInsights/alertRules")]
    for rule in rules:
        # A silent agent is no step of an attack.
        opening = "#DONT_CORR# " if rule["displayName"].startswith("opship:") else tag
        assert rule["description"].startswith(opening) and rule["description"].count("#") == opening.count("#")
    assert len(rules) == 24
