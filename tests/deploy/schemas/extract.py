#!/usr/bin/env python3
"""Cuts the schemas of the resource types that the templates use out of a clone of Azure/azure-resource-manager-schemas.

usage: extract.py CLONE   (a work tree or a bare repository; its commit goes into SOURCE.txt)
"""
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
BASE = "https://schema.management.azure.com/schemas/"
SECTIONS = ["resourceDefinitions", "extension_resourceDefinitions", "extensionResourceDefinitions",
            "unknown_resourceDefinitions", "resourceGroup_resourceDefinitions"]
TYPES = [line.split() for line in (HERE / "types.txt").read_text().splitlines() if line and not line.startswith("#")]
INTERFACE = ["MultiVm", "CommonControl", "ProviderControl"]


def read(clone, path):
    shown = subprocess.run(["git", "-C", clone, "show", f"HEAD:schemas/{path}"], capture_output=True, check=True)
    return json.loads(shown.stdout)


def definition(document, name):
    """The definition of a resource type in a document of its provider."""
    for section in SECTIONS:
        for found in document.get(section, {}).values():
            kinds = found.get("properties", {}).get("type", {}).get("enum", [])
            if [kind.lower() for kind in kinds] == [name.lower()]:
                return found
    raise SystemExit(f"no definition of {name}")


def references(node):
    """Names of the definitions of the same document that a node refers to."""
    if isinstance(node, dict):
        target = node.get("$ref", "")
        if "/definitions/" in target and ("common/" not in target):
            yield target.rsplit("/", 1)[1]
        for below in node.values():
            yield from references(below)
    elif isinstance(node, list):
        for below in node:
            yield from references(below)


def without_prose(node):
    """Descriptions are not needed to check anything, and are most of the bytes."""
    if isinstance(node, dict):
        return {key: without_prose(below) for key, below in node.items()
                if not (key == "description" and isinstance(below, str))}
    return [without_prose(below) for below in node] if isinstance(node, list) else node


def cut(clone, name, version, path):
    document = read(clone, f"{version}/{path}.json")
    resource = definition(document, name)
    resource = {**resource, "properties": {k: v for k, v in resource["properties"].items() if k != "resources"}}
    kept, left = {}, set(references(resource))
    while left:
        one = left.pop()
        kept[one] = document["definitions"][one]
        left |= set(references(kept[one])) - kept.keys()
    out = {"resource": without_prose(resource), "definitions": without_prose(kept)}
    target = HERE / f"{name.replace('/', '_')}@{version}.json"
    target.write_text(json.dumps(out, separators=(",", ":"), sort_keys=True) + "\n")


def main(clone):
    for name, version, path in TYPES:
        cut(clone, name, version, path)
    for part in INTERFACE:
        document = read(clone, f"0.1.2-preview/CreateUIDefinition.{part}.json")
        text = json.dumps(without_prose(document), separators=(",", ":")) + "\n"
        (HERE / f"CreateUIDefinition.{part}.json").write_text(text)
    commit = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, check=True, text=True)
    (HERE / "SOURCE.txt").write_text(
        "The JSON files of this folder are cut by extract.py out of github.com/Azure/azure-resource-manager-schemas,\n"
        f"commit {commit.stdout.strip()}. Copyright (c) 2015 Microsoft, MIT licence.\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
