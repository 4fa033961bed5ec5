"""Each check can fail: a mistake is put into the template, and is found once, where it is."""
import datetime
import json

import pytest
from world import ROOT, TEMPLATE, module, of_type, resource, template

import alerts
import columns
import retirements
import template as rules


def test_the_template_is_free_of_findings():
    assert rules.check(template()) == []
    totals = rules.count(TEMPLATE)
    assert totals["templates"] == 15 and totals["resources"] >= 38 and totals["expressions"] > 300


def misspelt_property(one):
    account = resource(module(one, "store"), "Storage/storageAccounts")["properties"]
    account["allowSharedKeyAcess"] = account.pop("allowSharedKeyAccess")


def wrong_kind_of_value(one):
    resource(module(one, "store"), "Storage/storageAccounts")["properties"]["allowBlobPublicAccess"] = "no"


def value_that_is_no_choice(one):
    resource(module(one, "vault"), "KeyVault/vaults")["properties"]["sku"]["name"] = "cheap"


def missing_property(one):
    del of_type(module(one, "workload")["resources"], "App/jobs")[0]["properties"]["configuration"]["replicaTimeout"]


def unknown_version(one):
    resource(module(one, "store"), "Storage/storageAccounts")["apiVersion"] = "2031-01-01"


def contributor_instead_of_publisher(one):
    module(one, "rule")["variables"]["monitoringMetricsPublisher"] = "b24988ac-6180-42a0-ab88-20f7382dd24c"


def one_character_too_many_in_a_role(one):
    module(one, "token")["variables"]["keyVaultSecretsUser"] = "4633458b-17de-408a-b874-0445c86b69e66"


def stray_bracket_in_a_role(one):
    assignment = resource(module(one, "token"), "Authorization/roleAssignments")["properties"]
    assignment["roleDefinitionId"] = "[format('/subscriptions/){0}/x/{1}', subscription().id, '4633458b-17de-408a-b874-0445c86b69e6')]"


def role_on_the_whole_account(one):
    assignment = resource(module(one, "store"), "Authorization/roleAssignments")
    assignment["scope"] = "[resourceId('Microsoft.Storage/storageAccounts', parameters('accountName'))]"
    assignment["name"] = assignment["name"].replace("/blobServices/containers", "").replace(", 'default', 'opship')", ")")


def role_on_the_resource_group(one):
    assignment = resource(module(one, "rule"), "Authorization/roleAssignments")
    del assignment["scope"]
    assignment["name"] = "[guid('', parameters('principalId'), variables('monitoringMetricsPublisher'))]"


def role_with_a_new_name_each_time(one):
    resource(module(one, "rule"), "Authorization/roleAssignments")["name"] = "[guid(deployment().name)]"


def key_in_an_output(one):
    value = "[listKeys(resourceId('Microsoft.Storage/storageAccounts', variables('accountName')), '2025-01-01').keys[0].value]"
    one["outputs"]["key"] = {"type": "string", "metadata": {"description": "The key of the store."}, "value": value}


def token_in_an_output(one):
    one["outputs"]["containerUrl"]["value"] = "[parameters('onePasswordToken')]"


def token_in_a_plain_variable(one):
    app = resource(module(one, "workload"), "App/containerApps")["properties"]
    app["template"]["containers"][0]["env"] = [{"name": "OPSHIP_ADMIN__TOKEN", "value": "[parameters('statusToken')]"}]


def token_to_a_module_that_logs_it(one):
    module(one, "token")["parameters"]["token"]["type"] = "string"


def token_as_plain_text(one):
    one["parameters"]["onePasswordToken"]["type"] = "string"


def token_with_a_default(one):
    one["parameters"]["onePasswordToken"]["defaultValue"] = "eyJhbGciOi"


def unused_parameter(one):
    one["parameters"]["spare"] = {"type": "string", "defaultValue": "", "metadata": {"description": "Optional. For nothing."}}


def unused_variable(one):
    module(one, "rule")["variables"]["spare"] = "x"


def unknown_parameter(one):
    one["variables"]["bareName"] = "[replace(parameters('nome'), '-', '')]"


def unknown_function(one):
    one["variables"]["bareName"] = "[replaceAll(parameters('name'), '-', '')]"


def broken_expression(one):
    one["variables"]["bareName"] = "[replace(parameters('name'), '-', '']"


def waits_for_nothing(one):
    workload = next(made for made in one["resources"] if "-workload-" in made["name"])
    workload["dependsOn"][0] = workload["dependsOn"][0].replace("environment", "enviroment")


def waits_for_another_type(one):
    container = resource(module(one, "store"), "Storage/storageAccounts/managementPolicies")
    container["dependsOn"] = [key.replace("storageAccounts'", "accounts'") for key in container["dependsOn"][:1]]


def does_not_wait(one):
    rule = next(made for made in one["resources"] if "-rule-" in made["name"])
    rule["dependsOn"] = [key for key in rule["dependsOn"] if "userAssignedIdentities" not in key]


def output_that_a_module_has_not(one):
    one["outputs"]["containerUrl"]["value"] = one["outputs"]["containerUrl"]["value"].replace("containerUrl", "containerUri")


def parameter_that_a_module_has_not(one):
    next(made for made in one["resources"] if "-store-" in made["name"])["properties"]["parameters"]["size"] = {"value": 1}


def parameter_that_a_module_needs(one):
    del next(made for made in one["resources"] if "-alerts-" in made["name"])["properties"]["parameters"]["email"]


def outer_scope(one):
    next(made for made in one["resources"] if "-token-" in made["name"])["properties"]["expressionEvaluationOptions"]["scope"] = "outer"


def fixed_region(one):
    resource(module(one, "vault"), "KeyVault/vaults")["location"] = "westeurope"


def one_cloud_only(one):
    workload = next(made for made in one["resources"] if "-workload-" in made["name"])["properties"]["parameters"]
    workload["settings"]["value"] = workload["settings"]["value"].replace("{1}/secrets/", ".vault.azure.net/secrets/")


def number_without_limits(one):
    del one["parameters"]["retentionInDays"]["maxValue"]


def no_description(one):
    del one["parameters"]["cpu"]["metadata"]


def default_that_is_not_allowed(one):
    one["parameters"]["mode"]["defaultValue"] = "pod"


def blank(one):
    resource(module(one, "vault"), "KeyVault/vaults")["properties"]["networkAcls"]["ipRules"] = []


def twice(one):
    inside = module(one, "vault")["resources"]
    inside.append(inside[-1])


def member_that_the_engine_does_not_know(one):
    resource(module(one, "content"), "Insights/workbooks")["etag"] = "*"


MISTAKES = [
    (member_that_the_engine_does_not_know, ".etag: no member of a resource of a template"),
    (misspelt_property, "unknown property allowSharedKeyAcess, did you mean allowSharedKeyAccess?"),
    (wrong_kind_of_value, "allowBlobPublicAccess: expected boolean, found str"),
    (value_that_is_no_choice, "'cheap' is none of standard, premium"),
    (missing_property, "replicaTimeout is missing"),
    (unknown_version, "no schema for Microsoft.Storage/storageAccounts@2031-01-01"),
    (contributor_instead_of_publisher, "b24988ac-6180-42a0-ab88-20f7382dd24c is no role that opship needs"),
    (one_character_too_many_in_a_role, "4633458b-17de-408a-b874-0445c86b69e66 is no role that opship needs"),
    (stray_bracket_in_a_role, "the role must be given by subscriptionResourceId"),
    (role_on_the_whole_account, "Storage Blob Data Contributor belongs on Microsoft.Storage/storageAccounts/blobServices/containers"),
    (role_on_the_resource_group, "Monitoring Metrics Publisher belongs on Microsoft.Insights/dataCollectionRules, not on the resource group"),
    (role_with_a_new_name_each_time, "its name must be guid(scope, principal, role)"),
    (key_in_an_output, "$.outputs.key.value: an output must not hold a secret"),
    (token_in_an_output, "$.outputs.containerUrl.value: an output must not hold a secret"),
    (token_in_a_plain_variable, "the secret statusToken would be readable here"),
    (token_to_a_module_that_logs_it, "the secret onePasswordToken would be readable here"),
    (token_as_plain_text, "onePasswordToken: a secret must be a securestring"),
    (token_with_a_default, "onePasswordToken: a secret must not have a default"),
    (unused_parameter, "$.parameters.spare: is never used"),
    (unused_variable, "variables.spare: is never used"),
    (unknown_parameter, "$.variables.bareName: parameters has no nome"),
    (unknown_function, "there is no function replaceAll"),
    (broken_expression, "$.variables.bareName: the expression does not parse"),
    (waits_for_nothing, "dependsOn: nothing here is"),
    (waits_for_another_type, "dependsOn: nothing here is"),
    (does_not_wait, "and does not wait for it"),
    (output_that_a_module_has_not, "the module has no output containerUri"),
    (parameter_that_a_module_has_not, "the module has no parameter size"),
    (parameter_that_a_module_needs, "the module's parameter email is not given"),
    (outer_scope, "the scope of a module's expressions must be inner"),
    (fixed_region, "location: a fixed region"),
    (one_cloud_only, "the name of one cloud"),
    (number_without_limits, "retentionInDays: a number needs minValue and maxValue"),
    (no_description, "$.parameters.cpu: has no description"),
    (default_that_is_not_allowed, "$.parameters.mode: its default is none of the allowed values"),
    (blank, "networkAcls.ipRules: is blank"),
    (twice, "is there twice"),
]


@pytest.mark.parametrize(("mistake", "told"), MISTAKES, ids=[mistake.__name__ for mistake, _ in MISTAKES])
def test_a_mistake_is_found(mistake, told):
    broken = template()
    mistake(broken)
    found = rules.check(broken)
    assert sum(told in line for line in found) == 1, found
    assert len(found) <= 3, "one mistake, and not a flood of findings"


@pytest.mark.parametrize(("old", "new", "told"), [
    ('"numberOfEvaluationPeriods": 1', '"numberOfEvaluationPeriods": 2', "2 periods over a query without TimeGenerated"),
    ("union isfuzzy=true (datatable(TimeGenerated: datetime, _ResourceId: string)[]), DCRLogErrors", "DCRLogErrors",
     "DCRLogErrors is not there before its first row"),
])
def test_an_alert_that_azure_refuses_or_switches_off_is_found(old, new, told):
    text = json.dumps(TEMPLATE)
    assert alerts.check(TEMPLATE) == [] and old in text
    found = alerts.check(json.loads(text.replace(old, new, 1)))
    assert len(found) == 1 and told in found[0], found


def test_a_version_within_a_year_of_its_end_is_found():
    announced = json.loads((ROOT / "tests/deploy/retirements.json").read_text())
    assert retirements.check(TEMPLATE, announced) == []
    older = template()
    resource(module(older, "vault"), "KeyVault/vaults")["apiVersion"] = "2024-11-01"
    on = [len(retirements.check(older, announced, datetime.date.fromisoformat(day))) for day in ("2026-02-26", "2026-02-27", "2030-01-01")]
    assert on == [0, 1, 1]
    assert all(one["source"].startswith("https://") and one["seen"] for one in announced)


def columns_of(one):
    documents = columns.documents(ROOT)
    return columns.check(one, (ROOT / "src/flow/decode.rs").read_text(), documents)


def test_columns_are_one_list_of_33():
    assert columns_of(template()) == []
    assert columns.count(TEMPLATE) == 33
    assert [name for name in columns.NEWER if name in module(TEMPLATE, "rule")["variables"]["newerColumns"]] == columns.NEWER


def test_a_column_missing_in_the_table_is_found():
    broken = template()
    columns.table_of(broken)["variables"]["columns"].pop(20)
    assert columns_of(broken) == ["the table lacks object_uuid string"]


def test_a_column_missing_in_the_stream_is_found():
    broken = template()
    rule = resource(module(broken, "rule"), "Insights/dataCollectionRules")["properties"]
    gone = rule["streamDeclarations"][columns.STREAM]["columns"].pop()
    assert columns_of(broken) == [f"the stream lacks {gone['name']} {gone['type']}"]


def test_a_deployment_that_sets_the_plan_of_a_table_is_found():
    broken = template()
    columns.table_of(broken)["variables"]["retention"]["plan"] = "Analytics"
    assert columns_of(broken) == ["the template sets the plan of a table that may be there"]


def test_a_column_of_another_type_or_case_is_found():
    broken = template()
    rule = resource(module(broken, "rule"), "Insights/dataCollectionRules")["properties"]
    for column in rule["streamDeclarations"][columns.STREAM]["columns"]:
        column["name"] = {"action_type": "action_Type"}.get(column["name"], column["name"])
        column["type"] = "long" if column["name"] == "aux_id" else column["type"]
    assert columns_of(broken) == [
        "the stream lacks action_type string", "the stream lacks aux_id int",
        "the stream has action_Type string, rows have not", "the stream has aux_id long, rows have not",
    ]


def test_a_stream_under_another_name_is_found():
    broken = template()
    resource(module(broken, "rule"), "Insights/dataCollectionRules")["properties"]["dataFlows"][0]["outputStream"] = "Custom-OnePassword_CL"
    assert columns_of(broken) == ["the rule names the stream Custom-OnePassword_CL, rows go to Custom-OnePasswordEventLogs_CL"]


def test_a_column_that_rows_lose_is_found():
    rows = (ROOT / "src/flow/decode.rs").read_text().replace('    "session" => "session" Dynamic,\n', "")
    found = columns.check(template(), rows, columns.documents(ROOT))
    assert sorted(found) == sorted(f"{where} has session dynamic, rows have not"
                                   for where in ("docs/azure/table.json", "docs/azure/rule.json", "the table", "the stream"))


def test_a_file_of_parameters_fits_its_template():
    document = json.loads((ROOT / "deploy/arm/azuredeploy.parameters.json").read_text())
    assert rules.parameter_file(document, TEMPLATE) == []
    document["parameters"] = {"onePasswordToken": {"value": "x"}, "workspace": {"value": "y"}}
    assert rules.parameter_file(document, TEMPLATE) == [
        "parameters.onePasswordToken: a secret in a file; give a reference to a vault or leave it out",
        "parameters.workspace: the template has none of this name", "parameters.workspaceResourceId: is needed",
    ]
