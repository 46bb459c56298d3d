"""Holds the files of deploy/ and .github/ against what callgate reads and serves, and against each other."""

import json
import re
import subprocess
import sys
from pathlib import Path

import read
import schemas

# What comes after DRAIN_SECONDS: the goodbye, and writing down what is left.
AFTER_DRAINING = 35
PORT = 5050


def mistakes_in(root):
    """Every mistake, as a sentence that begins with the file or the way into production."""
    found = []
    for check in (
        schemas.compose,
        schemas.kubernetes,
        schemas.ecs,
        schemas.bicep,
        schemas.bicep_parameters,
        settings,
        staging,
        replicas,
        grace,
        secrets,
        tokens,
        ports,
        routes,
        opened,
        metrics,
        runbook,
        toolchain,
        image_context,
        actions_are_pinned,
        workflow_scripts,
        compose_nginx,
        redis_rights,
    ):
        found += check(root)
    return found


def settings(root):
    text = (root / ".env.example").read_text()
    known = set(re.findall(r"^#([A-Z0-9_]+)=", text, re.MULTILINE))
    # A secret's comment ends with the mark, on the line before it.
    secret = set(re.findall(r"\(secret\)\n#([A-Z0-9_]+)=", text))
    for deployment in read.all_of(root):
        for name in deployment.environment:
            of_file = name.removesuffix("_FILE")
            if name not in known and not (name.endswith("_FILE") and of_file in secret):
                yield f"{deployment.name}: callgate reads no {name}"


def staging(root):
    """Staging has the caps that the SIP platform had there."""
    caps = {
        "TELEPHONY_GLOBAL_MAX_CONCURRENCY": "50",
        "TELEPHONY_PER_CAMPAIGN_MAX_CONCURRENCY": "10",
        "TELEPHONY_SEMAPHORE_TTL_SEC": "600",
    }
    environment = dict(re.findall(r"^([A-Z_]+)=(.*)$", (root / "deploy/staging.env").read_text(), re.MULTILINE))
    parameters = json.loads((root / "deploy/azure/staging.json").read_text())["parameters"]
    azure = parameters["settings"]["value"] | {"TELEPHONY_GLOBAL_MAX_CONCURRENCY": str(parameters["maxActiveCalls"]["value"])}
    for name, set_to in (("staging.env", environment), ("azure/staging.json", azure)):
        for setting, cap in caps.items():
            if set_to.get(setting) != cap:
                yield f"{name}: {setting} is {set_to.get(setting)}, and was {cap}"


def replicas(root):
    """callgate is told of as many as are started: the most for its share, the fewest for an alarm."""
    for deployment in read.all_of(root):
        if deployment.replicas is None:
            continue
        expected = int(deployment.environment["EXPECTED_REPLICAS"])
        least = int(deployment.environment.get("LEAST_REPLICAS", expected))
        fewest, most = deployment.replicas
        if (least, expected) != (fewest, most):
            yield f"{deployment.name}: there are {fewest} to {most} replicas, and callgate is told of {least} to {expected}"


def grace(root):
    for deployment in read.all_of(root):
        drain = int(deployment.environment["DRAIN_SECONDS"])
        if deployment.grace < drain + AFTER_DRAINING:
            yield f"{deployment.name}: killed after {deployment.grace} s, though it drains for {drain} s and says goodbye"
        told = deployment.environment.get("TERMINATION_GRACE_SECONDS")
        if told != str(deployment.grace):
            yield f"{deployment.name}: killed after {deployment.grace} s, and callgate is told of {told}"
        if deployment.name.startswith("ecs") and deployment.grace > 120:
            yield f"{deployment.name}: Fargate waits 120 s at most"


def secrets(root):
    """A secret's file is one that the gateway is handed."""
    for deployment in read.all_of(root):
        for name, path in deployment.environment.items():
            if name.endswith("_FILE") and Path(path).name not in deployment.secrets:
                yield f"{deployment.name}: {name} is {path}, which it is not handed"


def tokens(root):
    """Prometheus reads by a token that changes nothing."""
    for deployment in read.all_of(root):
        for name in ("OPS_TOKEN", "OPS_READ_TOKEN") if deployment.production else ():
            if not deployment.environment.keys() & {name, f"{name}_FILE"}:
                yield f"{deployment.name}: it has no {name}"


def ports(root):
    for deployment in read.all_of(root):
        for port in deployment.ports - {PORT}:
            yield f"{deployment.name}: nobody listens on {port}"
        listen = deployment.environment.get("LISTEN", f":{PORT}")
        if not listen.endswith(f":{PORT}"):
            yield f"{deployment.name}: it listens on {listen}"
    if f"EXPOSE {PORT}" not in (root / "deploy/Dockerfile").read_text():
        yield f"Dockerfile: {PORT} is not exposed"


def routes(root):
    served = re.findall(r'\b(?:get|post|options|delete)\("(/[^"]*)"', (root / "src/routes.rs").read_text())
    for deployment in read.all_of(root):
        for path in deployment.paths:
            if not (path in served or path.endswith("/") and any(one.startswith(path) for one in served)):
                yield f"{deployment.name}: there is no route {path}"


def opened(root):
    """Whatever is before callgate opens what nginx.conf does, and nothing else."""
    deploy = root / "deploy"
    right = read.opened_by_nginx(deploy / "nginx.conf")
    for name, paths in (
        ("ingress.yaml", read.opened_by_ingress(deploy / "kubernetes/ingress.yaml")),
        ("listener.yaml", read.opened_by_listener(deploy / "ecs/listener.yaml")),
        ("azure.md", read.opened_in_words(root / "docs/deploy/azure.md")),
    ):
        for path in right - paths:
            yield f"{name}: {path} is not opened, as nginx.conf does"
        for path in paths - right:
            yield f"{name}: {path} is opened, which nginx.conf does not"


def metrics(root):
    told = set(re.findall(r"`([a-z_]+)`", (root / "docs/metrics.md").read_text()))
    named = set()
    collector = read.read_yaml(root / "deploy/ecs/collector.yaml")[0]
    scraped = collector["receivers"]["prometheus"]["config"]["scrape_configs"][0]
    kept = set(scraped["metric_relabel_configs"][0]["regex"].split("|"))
    for declaration in collector["exporters"]["awsemf"]["metric_declarations"]:
        named |= {one.strip("^$") for one in declaration["metric_name_selectors"]}
    alarms = (root / "deploy/ecs/alarms.yaml").read_text()
    alarmed = set(re.findall(r"MetricName: ([a-z_]+)$", alarms, re.MULTILINE))
    for name in alarmed - named:
        yield f"alarms.yaml: the collector declares no {name}"
    for name in named ^ kept:
        yield f"collector.yaml: {name} is kept and not declared, or declared and not kept"
    trigger = read.read_yaml(root / "deploy/kubernetes/scaler.yaml")[0]["spec"]["triggers"][0]
    named |= set(re.findall(r"\(([a-z_]+)\{", trigger["metadata"]["query"]))
    for name in named - told:
        yield f"there is no metric {name}"


def runbook(root):
    """Every alarm names a page that there is, and those of CloudWatch are named there."""
    text = (root / "docs/runbook.md").read_text()
    pages = {f"docs/runbook.md#{name.lower()}" for name in re.findall(r"^### (\w+)$", text, re.MULTILINE)}
    alerts = (root / "deploy/prometheus/alerts.yml").read_text()
    for link in re.findall(r"runbook_url: (\S+)", alerts):
        if link not in pages:
            yield f"alerts.yml: {link} is no page of the runbook"
    for alarm in read.read_yaml(root / "deploy/ecs/alarms.yaml")[0]["Resources"].values():
        alarm = alarm["Properties"]
        if f"| `{alarm['AlarmName']}` |" not in text:
            yield f"runbook.md: it does not know {alarm['AlarmName']}"
        link = alarm["AlarmDescription"].split()[-1]
        if link not in pages:
            yield f"alarms.yaml: {link} is no page of the runbook"
    # What the page says to put before each of them.
    [put] = re.findall(r"^sed '(.+)' deploy/prometheus/alerts.yml", text, re.MULTILINE)
    made = subprocess.run(["sed", put], input=alerts, check=True, capture_output=True, text=True, timeout=20).stdout
    if "runbook_url: docs/" in made or made.count("runbook_url: https://") != alerts.count("runbook_url: "):
        yield "runbook.md: its sed makes no links of them"


def toolchain(root):
    version = re.search(r'channel = "(.+)"', (root / "rust-toolchain.toml").read_text())[1]
    for file in "deploy/Dockerfile", ".github/workflows/test.yml":
        text = (root / file).read_text()
        if set(re.findall(r"(?:rust:|RUSTUP_TOOLCHAIN=)(\d+\.\d+\.\d+)", text)) != {version}:
            yield f"{file}: not Rust {version}, as rust-toolchain.toml says"


def image_context(root):
    """What the program includes has to be among what the image is built of."""
    lines = (root / ".dockerignore").read_text().splitlines()
    taken = {line[1:] for line in lines if line.startswith("!")}
    for path in root.glob("src/**/*.rs"):
        if "tests" in path.name or "tests" in path.parts:
            continue
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', path.read_text()):
            included = (path.parent / name).resolve()
            if included.relative_to(root.resolve()).parts[0] not in taken:
                yield f".dockerignore: {path.name} includes {name}"
    for name in taken:
        if not (root / name).exists():
            yield f".dockerignore: there is no {name}"


def actions_are_pinned(root):
    for path in (root / ".github/workflows").glob("*.yml"):
        for action in re.findall(r"uses: (\S+)", path.read_text()):
            if not re.fullmatch(r"\./\S+|\S+@[0-9a-f]{40}", action):
                yield f"{path.name}: {action} can become another one"


def workflow_scripts(root):
    for path in (root / ".github/workflows").glob("*.yml"):
        for job in read.read_yaml(path)[0]["jobs"].values():
            for script in [step["run"] for step in job.get("steps", []) if "run" in step]:
                # A name that somebody has chosen would be part of the script.
                if "${{" in script:
                    yield f"{path.name}: an expression within a script"
                checked = subprocess.run(["shellcheck", "--shell=bash", "-"], input=script, capture_output=True, text=True, timeout=20)
                if checked.returncode != 0:
                    yield f"{path.name}: {checked.stdout}"


def compose_nginx(root):
    made = subprocess.run([root / "scripts/nginx-conf", "--compose"], check=True, capture_output=True, text=True, timeout=20)
    if made.stdout != (root / "deploy/nginx.compose.conf").read_text():
        yield "nginx.compose.conf: not what scripts/nginx-conf --compose makes of nginx.conf"


def redis_rights(root):
    """What callgate may do at Redis is told twice."""
    rule = re.search(r"~calls:\* -@all \S.*$", (root / "docs/replicas.md").read_text(), re.MULTILINE)[0]
    if f'{rule}"' not in (root / "docs/deploy/compose.md").read_text():
        yield "compose.md: its user of Redis has not the rights that replicas.md names"


if __name__ == "__main__":
    found = mistakes_in(Path(sys.argv[1]))
    for mistake in found:
        print(mistake, file=sys.stderr)
    sys.exit(bool(found))
