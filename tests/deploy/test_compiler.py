"""The official compiler finds what is wrong with the Bicep, and what of azuredeploy.json is not its own."""
import os
import shutil
import subprocess

import pytest
from world import ROOT

import compiler

MAIN = "deploy/bicep/main.bicep"


@pytest.fixture(scope="session")
def bicep():
    try:
        return compiler.program(ROOT)
    except compiler.NoCompiler as error:
        pytest.skip(f"the official Bicep compiler: {error}")


@pytest.fixture
def tree(tmp_path):
    """deploy/, to be spoilt."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    return tmp_path


def spoil(tree, file, old, new):
    text = (tree / file).read_text()
    assert old in text, f"{file} has no {old}"
    (tree / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(("file", "old", "new", "told"), [
    ("deploy/sentinel/sentinel.json", '      "properties": {\n        "category"', '      "etag": "*",\n      "properties": {\n        "category"', "BCP188"),
    (MAIN, "accountName: accountName", "acountName: accountName", "BCP035"),
    (MAIN, "output watchLogs string = mode", "output watchLogs string = nobody", "BCP057"),
    ("deploy/bicep/modules/store.bicep", "allowSharedKeyAccess", "allowSharedKeyAcess", "BCP089"),
    ("deploy/bicep/modules/store.bicep", "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", "azuredeploy.json is not what the Bicep says"),
    ("deploy/bicep/modules/vault.bicep", "param recover bool", "param recover bool\nparam spare string = ''", "no-unused-params"),
    ("deploy/arm/azuredeploy.json", '"contentVersion": "1.0.0.0"', '"contentVersion": "1.0.0.1"', "azuredeploy.json is not what the Bicep says"),
])
def test_a_mistake_is_found_by_its_name(bicep, tree, file, old, new, told):
    spoil(tree, file, old, new)
    found = compiler.made(bicep, tree)
    assert any(told in line for line in found), found


def test_what_is_not_formatted_is_found_and_written(bicep, tree):
    source = tree / "deploy/bicep/modules/vault.bicep"
    spoil(tree, "deploy/bicep/modules/vault.bicep", "  location: location", "    location: location")
    assert "vault.bicep is not formatted" in compiler.formatted(bicep, tree, source)[0]
    assert compiler.write(bicep, tree) == []
    assert compiler.formatted(bicep, tree, source) == []


@pytest.mark.parametrize(("name", "makes", "told"), [
    ("nowhere", None, "which is no program"),
    ("older", 'echo "Bicep CLI version 0.30.3 (abc)"', "is 0.30.3"),
    ("another", "echo hello", "is no Bicep compiler"),
])
def test_without_it_the_way_to_get_it_is_told(tmp_path, name, makes, told):
    program = tmp_path / name
    if makes:
        program.write_text(f"#!/bin/sh\n{makes}\n")
        program.chmod(0o755)
    outside = {**os.environ, "BICEP": str(program), "AZURE_CONFIG_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([ROOT / "scripts/bicep"], env=outside, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (69, "") and told in done.stderr and "az bicep install --version v0." in done.stderr
