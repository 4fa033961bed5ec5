"""Two deployments: one after the other, and one beside the other, with each choice that there is. No name, role or etag collides."""
import copy

import pytest
from world import OLDER, TABLE, TEMPLATE, deployed, every_module, of_type

VAULT = "/subscriptions/s2/resourceGroups/shared/providers/Microsoft.KeyVault/vaults/mine"
ENVIRONMENT = "/subscriptions/s2/resourceGroups/shared/providers/Microsoft.App/managedEnvironments/mine"
SUBNET = "/subscriptions/s2/resourceGroups/n/providers/Microsoft.Network/virtualNetworks/v/subnets/apps"
GROUP = "/subscriptions/s2/resourceGroups/shared/providers/Microsoft.Insights/actionGroups/mine"
# Each choice is another one than the default.
CHOICES = [
    {}, {"mode": "job"}, {"mode": "job", "jobCron": "0 * * * *", "jobTimeoutInMinutes": 60}, {"appCron": "*/5 * * * *"}, {"cpu": "1.0"},
    {"location": "northeurope"}, {"tags": {"cost": "soc"}}, {"tags": {"Microsoft.KeyVault/vaults": {"cost": "soc"}}},
    {"image": "mine.azurecr.io/opship:1", "registryServer": "mine.azurecr.io"}, {"onePasswordToken": ""}, {"tokenExpires": "2027-01-31"},
    {"eventsUrl": "https://events.1password.eu"}, {"streams": ["auditevents"]}, {"lookback": "now"}, {"existingVaultResourceId": VAULT},
    {"secretName": "another"}, {"recoverVault": True}, {"existingEnvironmentResourceId": ENVIRONMENT}, {"subnetResourceId": SUBNET},
    {"ingestion": "endpoint"}, {"ingestion": "private"}, {"timeGenerated": "event"}, {"table": "addColumns"}, {"table": "keep"}, {"table": "keep28"},
    {"retentionInDays": 30, "totalRetentionInDays": 365}, {"storageRedundancy": "Standard_LRS"}, {"grantWorkspaceReader": True},
    {"onInDoubt": "verify"}, {"deployDiagnostics": False}, {"deployAlerts": False}, {"alertEmail": "soc@example.com"},
    {"alertActionGroupResourceId": GROUP}, {"statusToken": "mine"}, {"statusPage": True}, {"deploySentinelContent": True},
    {"onboardSentinel": True}, {"deploySentinelContent": True, "ruleIdSalt": "again"},
    {"deploySentinelContent": True, "correlation": "exclude"},
    {"deploySentinelContent": True, "sentinelParts": ["rules"], "enableRules": False},
]
# In the workspace there is one of each, whoever deploys it.
OF_THE_WORKSPACE = ("Microsoft.OperationalInsights/", "Microsoft.SecurityInsights/", "Microsoft.Insights/workbooks")
each_choice = pytest.mark.parametrize("choice", CHOICES, ids=[" ".join(one) + "".join(f" {value}" for value in one.values())[:40] for one in CHOICES])


def key(one):
    """What Azure tells resources apart by; names are not case-sensitive."""
    return one["type"].lower(), one["name"].lower(), one.get("scope", "").lower()


def keys(deployment):
    return [key(one) for one in deployment.resources]


def test_every_parameter_has_been_given_another_value_than_its_default():
    assert set(TEMPLATE["parameters"]) - {"workspaceResourceId", "name"} == {name for one in CHOICES for name in one}
    # A choice for content without a rule is the same as no choice: enableRules is looked at where there are rules.
    for one in CHOICES:
        assert all(TEMPLATE["parameters"][name].get("defaultValue") != value or name == "onePasswordToken" for name, value in one.items())


@each_choice
def test_nothing_is_there_twice(choice):
    deployment = deployed(**choice)
    made, modules = keys(deployment), [name for name, _ in every_module(deployment)]
    assert len(made) == len(set(made)) and len(modules) == len(set(modules))
    assert all(len(name) <= 64 for name in modules)
    assignments = [one["name"] for one in of_type(deployment.resources, "Authorization/roleAssignments")]
    assert len(assignments) == len(set(assignments)) >= 3


@each_choice
def test_a_second_deployment_finds_what_the_first_one_made(choice):
    first = deployed(**choice)
    # What the first one put to the table is there now.
    there = copy.deepcopy(OLDER)
    for put in of_type(first.resources, "OperationalInsights/workspaces/tables"):
        there[TABLE]["schema"]["columns"] = copy.deepcopy(put["properties"]["schema"]["columns"])
    second = deployed(there=there, **choice)
    assert keys(second) == keys(first)
    assert [one for one in second.resources if one["type"].endswith("/tables")] == [one for one in first.resources if one["type"].endswith("/tables")]
    assert second.outputs == first.outputs


@each_choice
def test_what_two_choices_have_in_common_keeps_its_name(choice):
    """A redeployment with another choice makes no second store, vault, rule or role."""
    for kind in ("ManagedIdentity/userAssignedIdentities", "Storage/storageAccounts", "Insights/dataCollectionRules"):
        assert [key(one) for one in of_type(deployed(**choice).resources, kind)] == [key(one) for one in of_type(deployed().resources, kind)]
    roles = [{one["name"] for one in of_type(made.resources, "Authorization/roleAssignments")} for made in (deployed(), deployed(**choice))]
    # Another secret is another role on it.
    assert len(roles[0] - roles[1]) == len(choice.keys() & {"existingVaultResourceId", "secretName"})


@each_choice
def test_two_deployments_in_one_group_have_no_name_in_common(choice):
    if "existingVaultResourceId" in choice:
        choice = {**choice, "onePasswordToken": ""}
    made = {name: deployed(name=name, **choice) for name in ("opship", "op-ship", "opship-eu")}
    for one, other in (("opship", "op-ship"), ("opship", "opship-eu"), ("op-ship", "opship-eu")):
        both = set(keys(made[one])) & set(keys(made[other]))
        assert [line for line in both if not line[0].startswith(tuple(kind.lower() for kind in OF_THE_WORKSPACE))] == []
        modules = [{name for name, _ in every_module(made[name])} for name in (one, other)]
        assert modules[0] & modules[1] == set()
        assignments = [{line["name"] for line in of_type(made[name].resources, "Authorization/roleAssignments")} for name in (one, other)]
        assert assignments[0] & assignments[1] == set()


def test_saved_searches_are_written_over_whatever_is_there():
    """Without an etag in the properties a second deployment is a conflict (MicrosoftDocs/azure-docs 49275); beside them it is refused."""
    searches = of_type(deployed(deploySentinelContent=True).resources, "OperationalInsights/workspaces/savedSearches")
    assert len(searches) > 15
    assert {one["properties"]["etag"] for one in searches} == {"*"} and not any("etag" in one for one in searches)
    assert not any("etag" in one for one in deployed(deploySentinelContent=True).resources)
