"""Resources against the published schemas of their types (schemas/, cut by schemas/extract.py)."""
import difflib
import functools
import json
import pathlib
import re

from expressions import is_expression

FOLDER = pathlib.Path(__file__).parent / "schemas"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
# What Azure takes and its schemas do not know: the generator writes open lists of values as closed ones.
OPEN_VALUES = {
    ("Microsoft.Insights/dataCollectionRules", "kind"): re.compile("^Direct$"),
    ("Microsoft.Insights/dataCollectionRules", "streams"): re.compile("^Custom-"),
}
# Container Apps take quarters of a core.
FRACTIONS = {"Microsoft.App/containerApps", "Microsoft.App/jobs"}
NOT_REQUIRED = {("Microsoft.ManagedIdentity/userAssignedIdentities", "properties")}
# Of every resource, whatever its type.
COMMON = {"apiVersion", "condition", "dependsOn", "name", "scope", "type", "comments", "metadata"}
DEPLOYMENT = {"subscriptionId", "resourceGroup"}
# The published schemas have none for these; the content's own checks read their queries.
UNPUBLISHED = {
    "Microsoft.OperationalInsights/workspaces/savedSearches", "Microsoft.SecurityInsights/alertRules",
    "Microsoft.SecurityInsights/onboardingStates", "Microsoft.Insights/workbooks",
}


@functools.cache
def schema_of(kind, version):
    file = FOLDER / f"{kind.replace('/', '_')}@{version}.json"
    return json.loads(file.read_text()) if file.exists() else None


def versions_of(kind):
    return sorted(file.stem.split("@")[1] for file in FOLDER.glob(f"{kind.replace('/', '_')}@*.json"))


def findings(resource, path):
    """What the schema of a resource's type has against it."""
    kind, version = resource.get("type", ""), resource.get("apiVersion", "")
    if kind in UNPUBLISHED:
        return []
    schema = schema_of(kind, version)
    if schema is None:
        return [f"{path}: no schema for {kind}@{version}; there are: {', '.join(versions_of(kind)) or 'none'}"]
    common = COMMON | (DEPLOYMENT if kind.endswith("/deployments") else set())
    own = {key: value for key, value in resource.items() if key not in common}
    missing = [key for key in ("name", "type", "apiVersion") if key not in resource]
    root = {**schema["resource"], "required": [key for key in schema["resource"].get("required", []) if key not in common]}
    walk = Walk(schema["definitions"], kind)
    return [f"{path}: {key} is missing" for key in missing] + walk.object(root, own, path)


class Walk:
    def __init__(self, definitions, kind):
        self.definitions, self.kind = definitions, kind

    def value(self, schema, value, path, key):
        if value is None or is_expression(value):
            return []
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            return self.value(self.definitions.get(name, {}), value, path, key)
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                return self.one_of(schema[choice], value, path, key)
        found = [one for part in schema.get("allOf", []) for one in self.value(part, value, path, key)]
        wanted = schema.get("type")
        if wanted == "integer" and key == "cpu" and self.kind in FRACTIONS:
            wanted = "number"
        if wanted and (not isinstance(value, TYPES[wanted]) or isinstance(value, bool) != (wanted == "boolean")):
            return found + [f"{path}: expected {wanted}, found {type(value).__name__}"]
        if isinstance(value, dict):
            return found + self.object(schema, value, path)
        if isinstance(value, list):
            items = schema.get("items", {})
            return found + [one for place, item in enumerate(value) for one in self.value(items, item, f"{path}[{place}]", key)]
        return found + self.scalar(schema, value, path, key)

    def one_of(self, choices, value, path, key):
        tried = [self.value(one, value, path, key) for one in choices if not one.get("$ref", "").endswith("/expression")]
        return min(tried, key=len, default=[])

    def object(self, schema, value, path):
        known = {key.lower(): key for key in schema.get("properties", {})}
        found = [f"{path}: {key} is missing" for key in schema.get("required", [])
                 if key not in value and (self.kind, key) not in NOT_REQUIRED]
        others = schema.get("additionalProperties")
        for key, one in value.items():
            if key.lower() in known:
                found += self.value(schema["properties"][known[key.lower()]], one, f"{path}.{key}", key)
            elif isinstance(others, dict):
                found += self.value(others, one, f"{path}.{key}", key)
            elif known and not is_expression(key):
                near = difflib.get_close_matches(key, schema["properties"], 1)
                found.append(f"{path}: unknown property {key}" + (f", did you mean {near[0]}?" if near else ""))
        return found

    def scalar(self, schema, value, path, key):
        found, allowed = [], schema.get("enum")
        if allowed and str(value).lower() not in [str(one).lower() for one in allowed]:
            opened = OPEN_VALUES.get((self.kind, key))
            if not (opened and opened.search(str(value))):
                found.append(f"{path}: {value!r} is none of {', '.join(map(str, allowed))}")
        if isinstance(value, str):
            size = len(value)
            if "pattern" in schema and not re.search(schema["pattern"], value):
                found.append(f"{path}: {value!r} does not match {schema['pattern']}")
        else:
            size = value
        limits = ("minLength", "maxLength") if isinstance(value, str) else ("minimum", "maximum")
        if size < schema.get(limits[0], size) or size > schema.get(limits[1], size):
            found.append(f"{path}: {value!r} is beyond {schema.get(limits[0])} to {schema.get(limits[1])}")
        return found
