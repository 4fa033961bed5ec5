"""The portal's form, the buttons of the README, and the list of accepted findings: right as they are, and able to be wrong."""
import re

import pytest
from world import ROOT, TEMPLATE, TOKEN, WORKSPACE, deployed, form, template

import button
import document
import evaluate
import filled
import interface
import security
import template as rules


def test_the_form_is_free_of_findings():
    assert interface.check(form(), TEMPLATE) == []
    assert len(form()["parameters"]["outputs"]) == 26 and len(interface.elements_of(form())) == 29


def step(one, name):
    return next(made for made in one["parameters"]["steps"] if made["name"] == name)


def element(one, where, name):
    return next(made for made in step(one, where)["elements"] if made["name"] == name)


def output_without_parameter(one):
    one["parameters"]["outputs"]["regoin"] = "[location()]"


def needed_parameter_not_given(one):
    del one["parameters"]["outputs"]["workspaceResourceId"]


def element_that_is_not_there(one):
    one["parameters"]["outputs"]["image"] = "[steps('network').picture]"


def token_to_a_plain_parameter(one):
    one["parameters"]["outputs"]["alertEmail"] = "[steps('onepassword').token]"


def choice_that_the_template_refuses(one):
    element(one, "network", "ingestion")["constraints"]["allowedValues"][2]["value"] = "closed"


def another_default(one):
    element(one, "table", "timeGenerated")["defaultValue"] = "Time of the event"


def slider_beyond_the_limits(one):
    element(one, "table", "retention")["max"] = 4000


def misspelt_key(one):
    element(one, "onepassword", "lookback")["placeHolder"] = "30d"


def misspelt_key_of_a_newer_element(one):
    one["parameters"]["basics"][0]["resourceTypes"] = "x"


def pattern_that_is_none(one):
    element(one, "onepassword", "expires")["constraints"]["regex"] = "^(20$"


FORM_MISTAKES = [
    (output_without_parameter, "outputs.regoin: the template has no such parameter"),
    (needed_parameter_not_given, "outputs: the template needs workspaceResourceId"),
    (element_that_is_not_there, "there is no element network.picture"),
    (token_to_a_plain_parameter, "outputs.alertEmail: a PasswordBox goes to a secure parameter"),
    (choice_that_the_template_refuses, "outputs.ingestion: the form offers ['closed', 'direct', 'endpoint']"),
    (another_default, "outputs.timeGenerated: the form's default 'event' is not the template's 'ingestion'"),
    (slider_beyond_the_limits, "outputs.retentionInDays: the slider goes from 4 to 4000"),
    (misspelt_key, "parameters.steps.0.elements"),
    (misspelt_key_of_a_newer_element, ".workspace: unknown property resourceTypes"),
    (pattern_that_is_none, ".regex: missing ), unterminated subpattern"),
]


@pytest.mark.parametrize(("mistake", "told"), FORM_MISTAKES, ids=[mistake.__name__ for mistake, _ in FORM_MISTAKES])
def test_a_mistake_in_the_form_is_found(mistake, told):
    broken = form()
    mistake(broken)
    found = interface.check(broken, TEMPLATE)
    assert sum(told in line for line in found) == 1, found
    assert len(found) <= 2


def test_a_parameter_that_is_gone_is_found_in_the_form():
    smaller = template()
    del smaller["parameters"]["lookback"]
    assert interface.check(form(), smaller) == ["outputs.lookback: the template has no such parameter"]


def test_the_buttons_of_the_readme_lead_to_the_files():
    readme = (ROOT / "README.md").read_text()
    assert button.check(readme, ROOT) == []
    assert all(f"]({button.link(portal)})" in readme for portal in button.PORTALS.values())


@pytest.mark.parametrize(("old", "new", "told"), [
    ("azuredeploy.json", "azureDeploy.json", "leads to"),
    ("portal.azure.us", "portal.azure.com", "buttons for the"),
    ("%2Fmain%2F", "/main/", "buttons for the"),
    ("createUiDefinition.json", "createUIDefinition.json", "leads to"),
    ("https%3A%2F%2Fraw", "https%3a%2f%2fraw", "is not encoded as the portal wants it"),
])
def test_a_wrong_button_is_found(old, new, told):
    readme = "\n".join(f"[![x](y)]({button.link(portal)})" for portal in button.PORTALS.values())
    assert button.check(readme, ROOT) == []
    found = button.check(readme.replace(old, new), ROOT)
    assert found and all(told in line for line in found)


def test_a_finding_that_nobody_accepted_is_told_and_so_is_one_that_is_gone():
    listed = security.accepted()
    found = {(one["check"], one["resource"]) for one in listed}
    assert security.check(found, listed) == []
    assert security.check(found | {("CKV_AZURE_3", "A/b")}, listed) == ["checkov CKV_AZURE_3 fails on A/b"]
    gone = sorted(found)[0]
    assert security.check(found - {gone}, listed) == [f"accepted.json accepts {gone[0]} on {gone[1]}, which does not fail"]
    assert security.check({("C", "A/b")}, [{"check": "C", "resource": "A/b", "reason": "why not"}]) == ["accepted.json gives no reason for C"]


def test_checkov_sees_every_template_by_itself():
    names = [name for name, _ in security.parts(TEMPLATE)]
    assert sorted(names) == ["alerts", "content", "environment", "found", "input", "main", "refusal", "rule", "store", "table", "token",
                             "vault", "workload", "workspace"]
    modules = len(names) - 1
    assert sum(len(part["resources"]) for _, part in security.parts(TEMPLATE)) == rules.count(TEMPLATE)["resources"] - modules


def test_the_document_shows_the_parameters_and_the_roles():
    text = (ROOT / "docs/deploy.md").read_text()
    assert document.check(text, TEMPLATE) == []
    other = template()
    other["parameters"]["cpu"]["defaultValue"] = "0.5"
    assert document.check(text, other) == ["docs/deploy.md: the table of parameters is old: scripts/deploy-check --write"]
    wrong = text.replace("4633458b-17de-408a-b874-0445c86b69e6", "b24988ac-6180-42a0-ab88-20f7382dd24c")
    assert document.check(wrong, TEMPLATE) == ["docs/deploy.md: the condition names other roles than the template assigns"] * 2


def kinds(deployment):
    return sorted(one["type"] for one in deployment.resources)


def test_a_form_with_nothing_but_workspace_and_token_deploys_what_the_template_does_by_default():
    given = filled.outputs(form(), workspace={"id": WORKSPACE}, token=TOKEN)
    assert kinds(evaluate.Deployment(template(), given)) == kinds(deployed())
    assert [line for name, value in given.items() for line in wrong_type(name, value)] == []


def wrong_type(name, value):
    kind = TEMPLATE["parameters"][name]["type"]
    python = {"string": str, "securestring": str, "int": int, "bool": bool, "array": list}[kind]
    return [] if type(value) is python else [f"{name} gets a {type(value).__name__}"]


def test_a_table_without_the_newer_columns_gets_no_content_that_reads_them():
    given = filled.outputs(form(), workspace={"id": WORKSPACE}, token=TOKEN, table="keep28", content=True, parts=["rules"])
    assert (given["deploySentinelContent"], given["sentinelParts"]) == (False, [])
    assert element(form(), "watch", "content")["visible"] == "[not(equals(steps('table').table, 'keep28'))]"


def test_a_form_with_every_choice_deploys_what_was_chosen():
    vault = {"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.KeyVault/vaults/mine"}
    environment = {"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.App/managedEnvironments/mine"}
    given = filled.outputs(
        form(), workspace={"id": WORKSPACE}, mode="job", useVault=True, vault=vault, secretIsThere=True, expires="2027-01-31",
        table="keep", useEnvironment=True, environment=environment, ingestion="private", alerts=True, email="soc@example.com",
        diagnostics=False, reader=True, content=True, parts=["rules"])
    made = kinds(evaluate.Deployment(template(), given))
    assert [line for name, value in given.items() for line in wrong_type(name, value)] == []
    assert {"Microsoft.App/jobs", "Microsoft.Insights/dataCollectionEndpoints", "Microsoft.Insights/actionGroups"} <= set(made)
    absent = {"Microsoft.App/containerApps", "Microsoft.App/managedEnvironments", "Microsoft.KeyVault/vaults",
              "Microsoft.KeyVault/vaults/secrets", "Microsoft.OperationalInsights/workspaces/tables", "Microsoft.Insights/diagnosticSettings"}
    assert absent & set(made) == set() and made.count("Microsoft.Authorization/roleAssignments") == 4


def test_actions_of_the_workflow_are_pinned_by_digest():
    text = (ROOT / ".github/workflows/deploy.yml").read_text()
    uses = re.findall(r"uses: (\S+)(.*)", text)
    assert len(uses) == 3
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v\d+\.\d+\.\d+", note) for action, note in uses)


def test_links_of_the_document_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / "docs/deploy.md").read_text())
    missing = [one for one in targets if not one.startswith("https://") and not (ROOT / "docs" / one).exists()]
    assert missing == [] and targets != []
