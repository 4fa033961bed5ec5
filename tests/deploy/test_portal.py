"""The portal's form, the buttons of the README, and the list of accepted findings: right as they are, and able to be wrong."""
import re

import pytest
from world import ROOT, TEMPLATE, TOKEN, WORKSPACE, deployed, form, template

import button
import document
import evaluate
import filled
import interface
import portal_rules
import security
import template as rules


def test_the_form_is_free_of_findings():
    assert interface.check(form(), TEMPLATE) == []
    assert len(form()["parameters"]["outputs"]) == 35 and len(interface.elements_of(form())) == 41


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


def no_tooltip(one):
    del element(one, "onepassword", "vault")["toolTip"]


def blank_tooltip(one):
    element(one, "watch", "parts")["toolTip"] = " "


def no_pattern(one):
    del element(one, "onepassword", "eventsUrl")["constraints"]["regex"]


def no_message(one):
    del element(one, "network", "subnet")["constraints"]["validationMessage"]


def no_length(one):
    element(one, "watch", "email")["constraints"]["regex"] = "^([^@ ]+@[^@ ]+)?$"


def longer_than_the_template_takes(one):
    element(one, "onepassword", "secretName")["constraints"]["regex"] = "^(?=.{1,128}$)[0-9a-zA-Z-]+$"


def hidden_confirmation(one):
    element(one, "onepassword", "token")["options"] = {"hideConfirmation": True}


def token_of_any_length(one):
    element(one, "onepassword", "token")["constraints"]["regex"] = "^[!-~]+$"


def validation_without_a_message(one):
    one["parameters"]["config"]["basics"]["subscription"] = {"constraints": {"validations": [{"isValid": "[bool('true')]", "message": ""}]}}


def another_handler(one):
    one["handler"] = "Microsoft.Compute.MultiVm"


def another_version(one):
    one["version"] = "0.1.1-preview"


def new_groups_only(one):
    del one["parameters"]["config"]["basics"]["resourceGroup"]


def regions_without_container_apps(one):
    one["parameters"]["config"]["basics"]["location"]["resourceTypes"].remove("Microsoft.App/jobs")


def fixed_location(one):
    one["parameters"]["outputs"]["location"] = "westeurope"


def parameter_forgotten(one):
    del one["parameters"]["outputs"]["lookback"]
    step(one, "onepassword")["elements"].remove(element(one, "onepassword", "lookback"))


def hidden_value_without_coalesce(one):
    one["parameters"]["outputs"]["alertEmail"] = "[steps('watch').email]"


def choice_inside_a_function_without_coalesce(one):
    element(one, "watch", "email")["visible"] = "[equals(steps('watch').alerts, bool('true'))]"


def blank_default(one):
    element(one, "onepassword", "eventsUrl")["defaultValue"] = ""


FORM_MISTAKES = [
    (no_tooltip, "onepassword.vault: Tooltips-Should-Be-Present"),
    (blank_tooltip, "watch.parts: Tooltips-Should-Be-Present"),
    (no_pattern, "onepassword.eventsUrl: Textboxes-Are-Well-Formed: no regex"),
    (no_message, "network.subnet: Textboxes-Are-Well-Formed: no validationMessage"),
    (no_length, "watch.email: Textboxes-Are-Well-Formed: the regex does not begin with a length"),
    (longer_than_the_template_takes, "outputs.secretName: the form takes 1 to 128 characters, the template 1 to 127"),
    (hidden_confirmation, "onepassword.token: Credential-Confirmation-Should-Not-Be-Hidden"),
    (token_of_any_length, "onepassword.token: PasswordBoxes-Must-Have-Min-Length: 0, 12 are wanted"),
    (validation_without_a_message, "Validations-Must-Have-Message"),
    (another_handler, "handler: Handler-Must-Be-Correct: Microsoft.Azure.CreateUIDef is wanted"),
    (another_version, "version: Handler-Must-Be-Correct: 0.1.2-preview is wanted"),
    (new_groups_only, "config.basics.resourceGroup.allowExisting: without it"),
    (regions_without_container_apps, "config.basics.location.resourceTypes: regions without Microsoft.App/jobs are offered"),
    (fixed_location, "outputs.location: Location-Should-Be-In-Outputs"),
    (parameter_forgotten, "outputs: lookback is neither offered nor left out for a reason"),
    (hidden_value_without_coalesce, "parameters.outputs.alertEmail: watch.email may have no value: coalesce"),
    (choice_inside_a_function_without_coalesce, ".visible: watch.alerts may have no value: coalesce"),
    (blank_default, "defaultValue: is blank"),
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
    assert len(found) <= 3


def test_a_parameter_that_is_gone_is_found_in_the_form():
    smaller = template()
    del smaller["parameters"]["lookback"]
    assert "outputs.lookback: the template has no such parameter" in interface.check(form(), smaller)


def test_what_the_form_does_not_offer_is_named_with_a_reason():
    assert set(TEMPLATE["parameters"]) == set(form()["parameters"]["outputs"]) | set(portal_rules.NOT_OFFERED)
    assert all(len(reason) > 20 for reason in portal_rules.NOT_OFFERED.values())
    renamed = template()
    renamed["parameters"]["cores"] = renamed["parameters"].pop("cpu")
    found = interface.check(form(), renamed)
    assert "outputs: cores is neither offered nor left out for a reason" in found and len(found) == 2


def takes(where, name, text):
    constraints = next(one for key, one in interface.elements_of(form()).items() if key == (where, name))["constraints"]
    return bool(re.search(constraints["regex"], text)) and (bool(text) or not constraints["required"])


@pytest.mark.parametrize(("where", "name", "good", "bad"), [
    ("", "name", ["abc", "a-b", "opship", "opship-eu-1", "a1b2c3d4e5f6"],
     ["a--b", "ab-", "-ab", "Opship", "ab", "1ab", "a_b", "a-very-long-name", "a b", ""]),
    ("", "jobCron", ["*/5 * * * *", "0 6-18 * * 1-5"], ["* * * *", "* * * * * *", "hourly", ""]),
    ("onepassword", "secretName", ["onepassword-events-token"], ["my_token", "x" * 128, ""]),
    ("onepassword", "token", ["eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln_-"], ["short", "eyJhbGciOi JFUzI1NiJ9.x", "eyJhbGciOiJFUzI1NiJ9\n.x", ""]),
    ("onepassword", "expires", ["2027-01-31", ""], ["2027-02-30", "31.01.2027", "2027-1-1"]),
    ("onepassword", "eventsUrl", ["https://events.1password.eu", "https://events.1password.eu/", ""], ["http://events.1password.eu", "events.1password.eu"]),
    ("onepassword", "lookback", ["30d", "now", "12h", "2027-01-31T00:00:00Z"], ["120d", "d", "thirty", ""]),
    ("network", "subnet", ["/subscriptions/s/resourceGroups/n/providers/Microsoft.Network/virtualNetworks/v/subnets/apps", ""],
     ["/subscriptions/s/resourceGroups/n/providers/Microsoft.Network/virtualNetworks/v", "apps", "/subscriptions/s/virtualNetworks/v/subnets/x/y"]),
    ("network", "image", ["ghcr.io/opship/opship:0.1.0", "ghcr.io/opship/opship@sha256:" + "0" * 64], ["opship", "https://ghcr.io/opship/opship"]),
    ("network", "registryServer", ["mine.azurecr.io", ""], ["https://mine.azurecr.io", "mine.azurecr.io/opship", "mine"]),
    ("watch", "email", ["soc@example.com", ""], ["soc", "a@example.com,b@example.com", "a@" + "b" * 253 + ".com"]),
])
def test_a_text_box_takes_what_azure_takes(where, name, good, bad):
    assert [text for text in good if not takes(where, name, text)] == []
    assert [text for text in bad if takes(where, name, text)] == []


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
    assert sorted(names) == ["alerts", "content", "environment", "found", "input", "main", "onboarding", "refusal", "rule", "store", "table", "token",
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


def test_a_rule_of_the_service_that_nothing_looks_for_is_found():
    text = (ROOT / "docs/deploy.md").read_text()
    known = {"azuredeploy.json", "alert rules", "createUiDefinition.json", "versions of Azure's APIs", *document.names_of_tests(ROOT / "tests/deploy")}
    assert document.service_rules(text, known) == []
    assert len(text.split(document.RULES[0])[1].split(document.RULES[1])[0].splitlines()) - 2 >= 23
    found = document.service_rules(text.replace("`alert rules`", "`alert rule`"), known)
    assert len(found) == 1 and found[0].endswith("there is no alert rule")
    assert "does not say what looks for it" in document.service_rules(text.replace("nothing; see [the rights]", "see [the rights]"), known)[0]
    assert "has no source" in document.service_rules(text.replace("[Key Vault](https://", "[Key Vault](http://"), known)[0]


def kinds(deployment):
    return sorted(one["type"] for one in deployment.resources)


def test_a_form_with_nothing_but_workspace_and_token_deploys_what_the_template_does_by_default():
    given = filled.outputs(form(), workspace={"id": WORKSPACE}, token=TOKEN)
    assert kinds(evaluate.Deployment(template(), given)) == kinds(deployed())
    assert [line for name, value in given.items() for line in wrong_type(name, value)] == []


def wrong_type(name, value):
    kind = TEMPLATE["parameters"][name]["type"]
    python = {"string": str, "securestring": str, "int": int, "bool": bool, "array": list, "object": dict}[kind]
    return [] if type(value) is python else [f"{name} gets a {type(value).__name__}"]


def test_a_table_without_the_newer_columns_gets_no_content_that_reads_them():
    given = filled.outputs(form(), workspace={"id": WORKSPACE}, token=TOKEN, table="keep28", content=True, parts=["rules"])
    assert (given["deploySentinelContent"], given["sentinelParts"]) == (False, [])
    assert not filled.is_shown(element(form(), "watch", "content"), filled.filled(form(), {"table": "keep28"}))
    assert filled.is_shown(element(form(), "watch", "content"), filled.filled(form(), {}))


def test_a_control_that_vanished_leaves_no_value_behind():
    mine = {"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.Insights/actionGroups/mine"}
    given = filled.outputs(form(), workspace={"id": WORKSPACE}, token=TOKEN, alerts=False, email="soc@example.com", useGroup=True, group=mine,
                           vault=mine, environment=mine, jobCron="0 * * * *", table="addColumns", retention=30, recoverVault=True)
    assert (given["alertEmail"], given["alertActionGroupResourceId"], given["jobCron"], given["retentionInDays"]) == ("", "", "*/5 * * * *", 90)
    assert (given["existingVaultResourceId"], given["existingEnvironmentResourceId"], given["recoverVault"]) == ("", "", True)


def test_an_expression_without_coalesce_breaks_the_form():
    broken = form()
    broken["parameters"]["outputs"]["retentionInDays"] = "[if(equals(steps('table').table, 'create'), int(steps('table').retention), 90)]"
    with pytest.raises(filled.Undefined, match="int"):
        filled.outputs(broken, workspace={"id": WORKSPACE}, token=TOKEN, table="keep")
    broken["parameters"]["outputs"]["retentionInDays"] = "[steps('table').retention]"
    with pytest.raises(filled.Undefined, match="outputs without a value: retentionInDays"):
        filled.outputs(broken, workspace={"id": WORKSPACE}, token=TOKEN, table="keep")


def test_tags_of_the_form_go_to_the_types_they_were_given_to():
    tags = {"Microsoft.KeyVault/vaults": {"cost": "soc"}, "Microsoft.Insights/scheduledQueryRules": {"owner": "blue"}}
    given = filled.outputs(form(), workspace={"id": WORKSPACE}, token=TOKEN, tags=tags, email="soc@example.com")
    made = evaluate.Deployment(template(), given).resources
    tagged = {one["type"]: one["tags"] for one in made if one.get("tags")}
    assert tagged == {"Microsoft.KeyVault/vaults": {"cost": "soc"}, **{f"Microsoft.Insights/{kind}": {"owner": "blue"}
                      for kind in ("actionGroups", "metricAlerts", "scheduledQueryRules")}}
    everywhere = [one["tags"] for one in deployed(tags={"cost": "soc"}, alertEmail="soc@example.com").resources if "tags" in one]
    assert everywhere == [{"cost": "soc"}] * len(everywhere) and len(everywhere) > 10


GROUP = {"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.Insights/actionGroups/mine"}


def test_a_form_with_every_choice_deploys_what_was_chosen():
    vault = {"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.KeyVault/vaults/mine"}
    environment = {"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.App/managedEnvironments/mine"}
    given = filled.outputs(
        form(), workspace={"id": WORKSPACE}, mode="job", useVault=True, vault=vault, secretIsThere=True, expires="2027-01-31",
        table="keep", useEnvironment=True, environment=environment, ingestion="private", alerts=True, email="soc@example.com",
        diagnostics=False, reader=True, content=True, parts=["rules"], onInDoubt="verify", registryServer="mine.azurecr.io", jobCron="0 * * * *",
        eventsUrl="https://events.1password.eu", useGroup=True, group=GROUP)
    made = kinds(evaluate.Deployment(template(), given))
    assert [line for name, value in given.items() for line in wrong_type(name, value)] == []
    assert {"Microsoft.App/jobs", "Microsoft.Insights/dataCollectionEndpoints", "Microsoft.Insights/actionGroups"} <= set(made)
    absent = {"Microsoft.App/containerApps", "Microsoft.App/managedEnvironments", "Microsoft.KeyVault/vaults",
              "Microsoft.KeyVault/vaults/secrets", "Microsoft.OperationalInsights/workspaces/tables", "Microsoft.Insights/diagnosticSettings"}
    assert absent & set(made) == set() and made.count("Microsoft.Authorization/roleAssignments") == 4
    assert (given["jobCron"], given["onInDoubt"], given["alertActionGroupResourceId"]) == ("0 * * * *", "verify", GROUP["id"])


def test_links_of_the_document_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / "docs/deploy.md").read_text())
    missing = [one for one in targets if not one.startswith("https://") and not (ROOT / "docs" / one).exists()]
    assert missing == [] and targets != []
