"""The Deploy-to-Azure links of the README."""
import re
from urllib.parse import quote, unquote

RAW = "https://raw.githubusercontent.com/opship/opship/main/"
FILES = ("deploy/arm/azuredeploy.json", "deploy/arm/createUiDefinition.json")
PORTALS = {"public": "https://portal.azure.com", "US government": "https://portal.azure.us"}
LINK = re.compile(r"\((https://portal\.azure\.\w+)/#create/Microsoft\.Template/uri/([^/)]*)/createUIDefinitionUri/([^/)]*)\)")


def link(portal):
    """The whole address that opens the portal's form with the two files."""
    return f"{portal}/#create/Microsoft.Template/uri/{quote(RAW + FILES[0], safe='')}/createUIDefinitionUri/{quote(RAW + FILES[1], safe='')}"


def check(readme, root):
    """Each portal has one link, both links decode to files that are there."""
    found, seen = [], []
    for portal, *files in LINK.findall(readme):
        seen.append(portal)
        for encoded, wanted in zip(files, FILES):
            address = unquote(encoded)
            if quote(address, safe="") != encoded:
                found.append(f"{portal}: {encoded} is not encoded as the portal wants it")
            if address != RAW + wanted:
                found.append(f"{portal}: leads to {address}, the file is {RAW + wanted}")
            elif not (root / wanted).exists():
                found.append(f"{portal}: {wanted} is not there")
    for name, portal in PORTALS.items():
        if seen.count(portal) != 1:
            found.append(f"the README has {seen.count(portal)} buttons for the {name} cloud")
    return found
