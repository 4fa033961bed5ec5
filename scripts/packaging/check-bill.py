"""The parts list fits CycloneDX's schema; it and the list of licences name what is linked. Usage: check-bill.py BILL LINKED LICENCES"""

import json
import re
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

bill_path, linked_path, licences_path = sys.argv[1:]
text = open(bill_path, encoding="utf-8").read()
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
if error is not None:
    sys.exit(f"{bill_path}: {error}")

components = json.loads(text)["components"]
in_bill = {f"{part['name']} {part['version']}" for part in components}
header = open(licences_path, encoding="utf-8").read().split("\n\n")[1]
in_licences = {re.match(r"\S+ [^:]+", line).group() for line in header.splitlines()}
linked = set(open(linked_path, encoding="utf-8").read().splitlines())
for what, found in (("the parts list", in_bill), ("the licences", in_licences)):
    if found != linked:
        sys.exit(f"{what}: missing {sorted(linked - found)}, too many {sorted(found - linked)}")
without = [part["name"] for part in components if not part.get("licenses") or not part.get("purl")]
if without:
    sys.exit(f"without licence or package url: {without}")
print(f"{len(linked)} crates, each with licence and package url; valid CycloneDX 1.5")
