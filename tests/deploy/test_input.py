"""Bad input ends before anything is made, with a sentence: by the limits of a parameter, or by modules/input.bicep."""
import re

import pytest
from world import ROOT, TEMPLATE, WORKSPACE, deployed, every_module

VAULT = "/subscriptions/s/resourceGroups/r/providers/Microsoft.KeyVault/vaults/mine"
ENVIRONMENT = "/subscriptions/s/resourceGroups/r/providers/Microsoft.App/managedEnvironments/mine"
SUBNET = "/subscriptions/s/resourceGroups/n/providers/Microsoft.Network/virtualNetworks/v/subnets/apps"
GROUP = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Insights/actionGroups/mine"

BAD = [
    ("workspaceResourceId", VAULT + "/secrets/" + "x" * 60, "workspaceResourceId is no resource id"),
    ("workspaceResourceId", "law", "workspaceResourceId: 'law' is beyond 80"),
    ("workspaceResourceId", WORKSPACE + "/tables/x", "workspaceResourceId is no resource id"),
    ("workspaceResourceId", "https://portal.azure.com/#resource" + WORKSPACE, "workspaceResourceId is no resource id"),
    ("workspaceResourceId", WORKSPACE[:-3], "workspaceResourceId is no resource id"),
    ("existingVaultResourceId", "mine", "existingVaultResourceId is no resource id"),
    ("existingVaultResourceId", "https://mine.vault.azure.net", "existingVaultResourceId is no resource id"),
    ("existingEnvironmentResourceId", VAULT, "existingEnvironmentResourceId is no resource id"),
    ("subnetResourceId", SUBNET.split("/subnets/")[0], "GROUP/providers/microsoft.network/virtualnetworks/NAME/subnets/NAME"),
    ("alertActionGroupResourceId", "soc", "alertActionGroupResourceId is no resource id"),
    ("name", "ab", "name: 'ab' is beyond 3 to 12"), ("name", "a-name-too-long", "is beyond 3 to 12"),
    ("name", "a--b", "name is 3 to 12 letters"), ("name", "ab-", "name is 3 to 12 letters"), ("name", "1ab", "name is 3 to 12 letters"),
    ("name", "a_b", "name is 3 to 12 letters"), ("name", "b\u00fcro", "name is 3 to 12 letters"), ("name", "-ab", "name is 3 to 12 letters"),
    ("secretName", "my_token", "secretName has letters"), ("secretName", "", "secretName: '' is beyond 1 to 127"),
    ("tokenExpires", "31.01.2027", "tokenExpires is a day"), ("tokenExpires", "2027-13-01", "tokenExpires is a day"),
    ("tokenExpires", "2027-02-30", "tokenExpires is a day"), ("tokenExpires", "2027-1-1", "tokenExpires is a day"),
    ("tokenExpires", "2027-00-10", "tokenExpires is a day"), ("tokenExpires", "2027-01-31T00:00:00Z", "is beyond None to 10"),
    ("eventsUrl", "events.1password.eu", "eventsUrl begins with https://"), ("eventsUrl", "http://events.1password.eu", "eventsUrl begins"),
    ("tokenExpires", "2027-02-29", "tokenExpires is a day"), ("lookback", "400d", "lookback is a duration"),
    ("lookback", "30 days", "lookback is a duration"), ("lookback", "The start", "lookback is a duration"),
    ("appCron", "a b c d e", "five fields"),
    ("lookback", "thirty days", "lookback is a duration"), ("lookback", "30", "lookback is a duration"), ("lookback", "d", "is beyond 2 to"),
    ("appCron", "*/5 * * *", "appCron and jobCron have five fields"), ("appCron", "0 */5 * * * *", "appCron and jobCron have five fields"),
    ("appCron", "hourly", "appCron: 'hourly' is beyond 9"),
    ("image", "https://ghcr.io/opship/opship", "image is REGISTRY"), ("image", "opship", "image is REGISTRY"),
    ("registryServer", "https://mine.azurecr.io", "registryServer is a name"), ("alertEmail", "soc", "alertEmail is one mail address"),
    ("alertEmail", "a@example.com,b@example.com", "alertEmail is one mail address"),
    ("streams", [], "streams: [] is beyond 1"), ("streams", ["everything"], "is not allowed"), ("mode", "pod", "mode: 'pod' is not allowed"),
    ("retentionInDays", 3, "retentionInDays: 3 is beyond 4 to 730"), ("totalRetentionInDays", 800, "800 is not allowed"),
    ("jobTimeoutInMinutes", 5, "jobTimeoutInMinutes: 5 is beyond 10 to 240"), ("cpu", "4", "cpu: '4' is not allowed"),
]


@pytest.mark.parametrize(("parameter", "value", "told"), BAD, ids=[f"{name}={value!r:.40}" for name, value, _ in BAD])
def test_bad_input_is_refused_with_a_sentence(parameter, value, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        deployed(**{parameter: value})


def test_content_that_reads_columns_that_are_not_there_is_refused():
    with pytest.raises(ValueError, match="deploySentinelContent reads all 33 columns: not with table keep28"):
        deployed(table="keep28", deploySentinelContent=True)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ValueError, match="secretName has letters.*lookback is a duration"):
        deployed(secretName="a b", lookback="?0")


@pytest.mark.parametrize("choice", [
    {"name": "Opship-EU"}, {"tokenExpires": "2028-02-29"}, {"lookback": "now"}, {"lookback": "12h"}, {"lookback": "2027-01-31T00:00:00Z"},
    {"workspaceResourceId": WORKSPACE.replace("resourceGroups", "resourcegroups").replace("Microsoft.OperationalInsights", "microsoft.operationalinsights")},
    {"existingVaultResourceId": VAULT, "existingEnvironmentResourceId": ENVIRONMENT, "subnetResourceId": SUBNET, "alertActionGroupResourceId": GROUP},
    {"eventsUrl": "https://events.1password.eu", "registryServer": "mine.azurecr.io", "alertEmail": "soc@example.com"},
    {"appCron": "*/2  * * * *"}, {"image": "localhost:5000/opship@sha256:" + "0" * 64}, {"table": "keep28"},
], ids=lambda choice: " ".join(choice))
def test_good_input_makes_no_refusal(choice):
    names = [name for name, _ in every_module(deployed(**choice))]
    assert any("-input-" in name for name in names) and not any("refusal" in name for name in names)


def test_nothing_is_made_before_the_input_is_looked_at():
    def waits(one):
        return any("-input-" in key or "userAssignedIdentities" in key for key in one.get("dependsOn", []))
    first = {one["name"] for one in TEMPLATE["resources"] if not waits(one) and "-input-" not in one["name"]}
    # What waits for one of those that wait.
    assert first == {one["name"] for one in TEMPLATE["resources"] if "-alerts-" in one["name"] or "-content-" in one["name"]}
    for one in TEMPLATE["resources"]:
        if one["name"] in first:
            assert any("-rule-" in key or "-workload-" in key for key in one["dependsOn"])


def test_the_name_is_made_lower_in_one_place_that_everything_uses():
    text = (ROOT / "deploy/bicep/main.bicep").read_text()
    assert re.findall(r"\bname\b(?=[)},]| \?)", re.sub(r"\.name\b|#.*", "", text.split("param enableRules", 1)[1])) == ["name"]
    assert "var base = toLower(name)" in text and "Upper case is made lower" in TEMPLATE["parameters"]["name"]["metadata"]["description"]
    upper, lower = deployed(name="OpShip-EU"), deployed(name="opship-eu")
    assert upper.resources == lower.resources and upper.outputs == lower.outputs


def test_every_text_that_a_person_types_has_limits():
    open_ended = {"location", "statusToken"}
    without = {name for name, one in TEMPLATE["parameters"].items()
               if one["type"].lower() in ("string", "securestring") and "maxLength" not in one and "allowedValues" not in one}
    assert without == open_ended
