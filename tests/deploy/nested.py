"""The resources of a template, at any depth."""


def every(template, path="$"):
    """Where each stands, and what it is."""
    for place, resource in enumerate(template.get("resources", [])):
        where, properties = f"{path}.resources[{place}]", resource.get("properties", {})
        yield where, resource
        # Of a container app a template is no template.
        inside = properties.get("template") if isinstance(properties, dict) else None
        if resource.get("type") == "Microsoft.Resources/deployments" and isinstance(inside, dict):
            yield from every(inside, f"{where}.properties.template")
