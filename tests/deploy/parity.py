"""Two ARM templates that say the same in other words: order, case of functions and the compiler's signature don't matter."""
import re

from expressions import Call, ExpressionError, Text, is_expression, parsed, printed


def canonical(node, key=None):
    if isinstance(node, dict):
        made = {one: canonical(value, one) for one, value in node.items()}
        if key == "metadata":
            made.pop("_generator", None)
        return {one: value for one, value in made.items() if value not in ({}, [])}
    if isinstance(node, list):
        made = [canonical(one) for one in node]
        return sorted(made, key=str) if key == "dependsOn" else made
    if is_expression(node):
        try:
            return f"[{printed(plain(parsed(node), key))}]"
        except ExpressionError:
            return node
    return node


def plain(tree, key):
    """`format('A/b/{0}', x)` as a scope is `resourceId('A/b', x)`; compilers have written both."""
    if key == "scope" and isinstance(tree, Call) and tree.name == "format" and isinstance(tree.arguments[0], Text):
        kind = re.sub(r"/\{\d\}", "", tree.arguments[0].value)
        return Call("resourceId", (Text(kind), *tree.arguments[1:]))
    return tree


def differences(one, other, path="$"):
    """Lines that say where two canonical documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other:
                found.append(f"{path}.{key}: only in the {'second' if key in other else 'first'}")
            else:
                found += differences(one[key], other[key], f"{path}.{key}")
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [line for place, pair in enumerate(zip(one, other)) for line in differences(*pair, f"{path}[{place}]")]
    return [] if one == other else [f"{path}: {str(one)[:160]} is not {str(other)[:160]}"]


def compare(one, other):
    return differences(canonical(one), canonical(other))
