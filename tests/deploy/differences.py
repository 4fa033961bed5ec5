"""Where two JSON documents differ."""


def differences(one, other, path="$"):
    """A line for each place."""
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
