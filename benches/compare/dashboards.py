"""Whether Grafana's own types read the dashboards in deploy/: what they do not know is a name that Grafana ignores.

Each dashboard is read by `grafana-foundation-sdk`, which Grafana generates from its schemas, and written again; whatever
is lost or changed on the way is printed, and ends it with 1. Needs `grafana-foundation-sdk`; no Grafana.
"""

import json
import pathlib
import re
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARDS = pathlib.Path(__file__).parents[2] / "deploy/grafana/dashboards"
# Known to Grafana, and not to these types: what the Prometheus data source adds to annotations (its AnnotationQueryEditor),
# what the editor of a variable shows, the number of a dashboard that has none yet, gaps of a state timeline.
BESIDES = re.compile(
    r"\.annotations\.list\[\d+\]\.(step|titleFormat|textFormat|tagKeys|useValueForTime)|\.templating\.list\[\d+\]\.definition"
    r"|\.id|\.panels\[\d+\]\.fieldConfig\.defaults\.custom\.spanNulls"
)


def differences(ours, theirs, path=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            place = f"{path}.{name}"
            if name in theirs:
                yield from differences(value, theirs[name], place)
            elif not BESIDES.fullmatch(place):
                yield f"{place}: unknown, {value!r}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(one, other, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} is read as {theirs!r}"


plugins.register_default_plugins()
found = 0
for file in sorted(DASHBOARDS.glob("*.json")):
    dashboard = json.loads(file.read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    lost = list(differences(dashboard, read))
    found += len(lost)
    print(f"{file.name}: {len(dashboard['panels'])} panels, {len(lost)} differences")
    for line in lost:
        print(f"  {line}")
sys.exit(found > 0)
