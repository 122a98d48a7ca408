"""What is made from regions.yaml is what is there."""

import sys

from judge import Mistake, check


@check(
    Mistake("loadtest/k6/regions.json", '"share": 50', '"share": 40', "loadtest/k6/regions.json"),
    Mistake("regions.yaml", "share: 30", "share: 31", "101 percent"),
    Mistake("regions.yaml", "AF]", "AS]", "AF"),
)
def are_one_list(tree):
    """Every file that `make regions` writes is as it would write it, and the list itself is whole."""
    listed = tree.yaml("regions.yaml")
    regions = listed["regions"]
    shares = sum(region["share"] for region in regions.values())
    if shares != 100:
        yield f"regions.yaml: the shares come to {shares} percent"
    if listed["primary"] not in regions:
        yield f"regions.yaml: the primary {listed['primary']} is no region"
    if sum(region.get("default", False) for region in regions.values()) != 1:
        yield "regions.yaml: one region, and no other, is the default"
    named = [one for region in regions.values() for one in region["continents"]]
    for continent in ["AF", "AN", "AS", "EU", "NA", "OC", "SA"]:
        if named.count(continent) != 1:
            yield f"regions.yaml: {continent} belongs to {named.count(continent)} regions"
    before = contents(tree)
    made = tree.run(sys.executable, ".ci/regions")
    if made.returncode != 0:
        yield f".ci/regions: {made.stderr}"
        return
    after = contents(tree)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name}: not what `make regions` writes"


def contents(tree):
    files = (file for file in tree.root.rglob("*") if file.is_file())
    return {str(file.relative_to(tree.root)): file.read_bytes() for file in files}
