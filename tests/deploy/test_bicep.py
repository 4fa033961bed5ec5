"""The Bicep and the ARM template are one, and what the compiler does not cover it refuses."""
import json

import pytest
from world import ROOT, TEMPLATE, compiled_with, template

import bicep
import parity


def alone(text):
    return bicep.compiled("one.bicep", lambda _path: text)


def test_the_arm_template_is_what_the_bicep_says():
    assert parity.compare(bicep.compiled(str(ROOT / "deploy/bicep/main.bicep")), template()) == []
    assert bicep.printed(bicep.compiled(str(ROOT / "deploy/bicep/main.bicep"))) == (ROOT / "deploy/arm/azuredeploy.json").read_text()


@pytest.mark.parametrize(("file", "old", "new", "told"), [
    ("store.bicep", "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", ".properties.allowSharedKeyAccess: True is not False"),
    ("store.bicep", "    days: 14\n", "", ".properties.deleteRetentionPolicy.days: only in the second"),
    ("main.bicep", "param mode string = 'app'", "param mode string = 'job'", "$.parameters.mode.defaultValue: job is not app"),
    ("main.bicep", "output watchLogs", "output logs", "$.outputs.watchLogs: only in the second"),
    ("token.bicep", "4633458b", "4633458c", ".variables.keyVaultSecretsUser: 4633458c-17de"),
    ("main.bicep", "    principalId: identity.properties.principalId\n  }\n  dependsOn: [\n    inWorkspace\n  ]",
     "    principalId: identity.properties.principalId\n  }", ".dependsOn: "),
])
def test_a_difference_between_the_two_is_found(file, old, new, told):
    found = parity.compare(compiled_with(file, old, new), template())
    assert any(told in line for line in found), found
    assert len(found) <= 2


def test_order_case_and_signature_make_no_difference():
    other = template()
    other["metadata"]["_generator"] = {"name": "bicep", "version": "0.40.2", "templateHash": "1"}
    other["resources"][2]["dependsOn"].reverse()
    other["variables"]["suffix"] = "[UniqueString( resourceGroup().id,parameters('name') )]"
    assert parity.compare(other, TEMPLATE) == []
    assert json.dumps(other) != json.dumps(TEMPLATE)


def test_a_scope_may_be_written_in_two_ways():
    one = {"scope": "[format('Microsoft.A/b/{0}/c/{1}', parameters('x'), 'y')]"}
    other = {"scope": "[resourceId('Microsoft.A/b/c', parameters('x'), 'y')]"}
    assert parity.compare(one, other) == []
    assert len(parity.compare(one, {"scope": "[resourceId('Microsoft.A/b/c', parameters('x'), 'z')]"})) == 1


@pytest.mark.parametrize(("text", "told"), [
    ("param x string = \n'\n", "one.bicep:"),
    ("output o string = nobody\n", "one.bicep:1:19: unknown name `nobody`"),
    ("param x string\nvar v = [for i in range(0, 2): i]\noutput o array = v\n", "not covered: for_statement"),
    ("resource r 'A.B/c@2020-01-01' = {\n  name: 'n'\n}\nvar v = r.properties.x\n", "a variable must not hold what is known only after"),
    ("@sys.batchSize(1)\nparam x string\n", "not covered"),
])
def test_what_cannot_be_compiled_is_an_error_with_its_place(text, told):
    with pytest.raises((bicep.BicepError, IndexError)) as error:
        alone(text)
    assert isinstance(error.value, bicep.BicepError) and told in str(error.value)


@pytest.mark.parametrize(("old", "new", "told"), [
    ("    accountName: accountName\n", "", "modules/store.bicep needs the parameter `accountName`"),
    ("    sku: storageRedundancy", "    size: storageRedundancy", "modules/store.bicep has no parameter `size`"),
])
def test_a_module_gets_the_parameters_it_has(old, new, told):
    with pytest.raises(bicep.BicepError, match=told):
        compiled_with("main.bicep", old, new)


@pytest.mark.parametrize(("text", "wanted"), [
    ("a ? b : c.d", "[if(parameters('a'), parameters('b'), parameters('c').d)]"),
    ("!empty(b) && a || c == 'x'", "[or(and(not(empty(parameters('b'))), parameters('a')), equals(parameters('c'), 'x'))]"),
    ("'${b}-${c}'", "[format('{0}-{1}', parameters('b'), parameters('c'))]"),
    ("'it''s' == b", None),
    ("'{${b}}'", "[format('{{{0}}}', parameters('b'))]"),
    ("'{}'", "{}"),
    ("b!.x", "[parameters('b').x]"),
    ("a ? b!.x : c!.y", "[if(parameters('a'), parameters('b').x, parameters('c').y)]"),
    ("b[1].x", "[parameters('b')[1].x]"),
    ("'[not one]'", "[[not one]"),
    ("-3", -3),
])
def test_expressions_become_what_the_official_compiler_writes(text, wanted):
    source = f"param a bool\nparam b string\nparam c string\nvar v = {text}\noutput o string = v\n"
    if wanted is None:
        with pytest.raises(bicep.BicepError, match="syntax error"):
            alone(source)
    else:
        assert alone(source)["variables"]["v"] == wanted
