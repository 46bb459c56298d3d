"""Reads what each way into production sets, asks for and waits for, into one form."""

import functools
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pycep import BicepParser


@dataclass
class Deployment:
    name: str
    """Settings by name; those from files are NAME_FILE."""
    environment: dict
    """Seconds from SIGTERM until it is killed."""
    grace: int
    """Every port by which it is reached or asked."""
    ports: set = field(default_factory=set)
    """Every path that it is asked for."""
    paths: set = field(default_factory=set)
    """The fewest replicas and the most that are started, where the files say so."""
    replicas: tuple | None = None
    """The names of the files with secrets that it is handed."""
    secrets: set = field(default_factory=set)
    production: bool = True


class Loader(yaml.SafeLoader):
    """YAML with Compose's tags, where what is reset is not there, and with CloudFormation's references."""


class Reset:
    pass


Loader.add_constructor("!reset", lambda loader, node: Reset())
Loader.add_constructor("!Ref", lambda loader, node: node.value)


def read_yaml(path):
    return [document for document in yaml.load_all(path.read_text(), Loader) if document]


def without_resets(value):
    if isinstance(value, dict):
        return {key: without_resets(one) for key, one in value.items() if not isinstance(one, Reset)}
    if isinstance(value, list):
        return [without_resets(one) for one in value]
    return value


def env_file(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def all_of(root):
    """Every way into production."""
    deploy = root / "deploy"
    production, staging = env_file(deploy / "production.env"), env_file(deploy / "staging.env")
    yield from compose(deploy, production, staging)
    yield kubernetes(deploy / "kubernetes")
    for name in "production", "staging":
        yield ecs(deploy, name)
        yield container_apps(deploy / "azure", name)
    yield systemd(deploy / "systemd")


def compose(deploy, production, staging):
    alone = read_yaml(deploy / "docker-compose.yml")[0]["services"]["callgate"]
    more = read_yaml(deploy / "docker-compose.prod.yml")[0]["services"]["callgate"]
    grace = seconds(alone["stop_grace_period"])
    ports = {int(one.rsplit(":", 1)[1]) for one in alone["ports"]}
    # Nothing is set where it is started: ${NAME:-default} is the default.
    plain = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in alone["environment"].items()}
    yield Deployment("docker-compose.yml", plain, grace, ports, production=False)
    for name, settings in ("production", production), ("staging", staging):
        environment = without_resets(alone["environment"] | more["environment"])
        secrets = set(more["secrets"])
        yield Deployment(f"docker-compose.prod.yml with {name}.env", settings | environment, grace, secrets=secrets)


def kubernetes(folder):
    config = read_yaml(folder / "config.yaml")[0]
    pod = read_yaml(folder / "deployment.yaml")[0]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    paths = {probe["path"] for probe in probes}
    for ingress in read_yaml(folder / "ingress.yaml"):
        paths |= {path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]}
    monitor = read_yaml(folder / "monitor.yaml")[0]["spec"]
    paths |= {endpoint["path"] for endpoint in monitor["podMetricsEndpoints"]}
    ports = {port["containerPort"] for port in container["ports"]}
    ports |= {port["port"] for port in read_yaml(folder / "service.yaml")[0]["spec"]["ports"]}
    grace = pod["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    scaler = read_yaml(folder / "scaler.yaml")[0]["spec"]
    replicas = scaler["minReplicaCount"], scaler["maxReplicaCount"]
    secrets = set(read_yaml(folder / "secret.example.yaml")[0]["stringData"])
    return Deployment("kubernetes", config["data"], grace, ports, paths, replicas, secrets)


def opened_by_nginx(path):
    """Every path that is passed on to callgate; with a star at its end it is a prefix."""
    locations = re.findall(r"^ {8}location (?:([=~]) )?(\S+) \{(.*?)^ {8}\}", path.read_text(), re.MULTILINE | re.DOTALL)
    paths = set()
    for how, name, what in locations:
        if "proxy_pass" not in what:
            continue
        if how == "~":
            either = re.fullmatch(r"\^/\((.+)\)", name)[1].split("|")
            paths |= {f"/{one}".removesuffix("$") if one.endswith("$") else f"/{one}*" for one in either}
        else:
            paths.add(name if how == "=" else f"{name}*")
    return widest(paths)


def opened_by_ingress(path):
    rules = [rule for ingress in read_yaml(path) for rule in ingress["spec"]["rules"]]
    paths = [one for rule in rules for one in rule["http"]["paths"]]
    return widest({one["path"] + ("*" if one["pathType"] == "Prefix" else "") for one in paths})


def opened_by_listener(path):
    [template] = read_yaml(path)
    kinds = {"AWS::ElasticLoadBalancingV2::ListenerRule": "Actions", "AWS::ElasticLoadBalancingV2::Listener": "DefaultActions"}
    paths = set()
    for one in template["Resources"].values():
        [action] = one["Properties"][kinds[one["Type"]]]
        if action["Type"] == "forward":
            conditions = one["Properties"].get("Conditions", [{"PathPatternConfig": {"Values": ["/*"]}}])
            paths |= {value for condition in conditions for value in condition["PathPatternConfig"]["Values"]}
    return widest(paths)


def opened_in_words(path):
    """The list of a page, which is the first block that is plain text."""
    return widest(set(re.search(r"^```text\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)[1].split()))


def widest(paths):
    """Without those that a prefix of theirs opens anyway."""
    prefixes = {one.removesuffix("*") for one in paths if one.endswith("*")}
    return {one for one in paths if not any(one.startswith(prefix) for prefix in prefixes - {one.removesuffix("*")})}


def rendered(deploy, name):
    command = [deploy / "ecs/render", "--environment", deploy / f"{name}.env", "--account", "000000000000"]
    command += ["--region", "eu-central-1", "--image", "registry.example.com/callgate@sha256:0"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=20).stdout)


def ecs(deploy, name):
    task = rendered(deploy, name)["containerDefinitions"][0]
    environment = {one["name"]: one["value"] for one in task["environment"]}
    environment |= {one["name"]: "" for one in task["secrets"]}
    service = json.loads((deploy / "ecs/service.json").read_text())
    ports = {port["containerPort"] for port in task["portMappings"] + service["loadBalancers"]}
    replicas = service["desiredCount"], service["desiredCount"]
    return Deployment(f"ecs with {name}.env", environment, task["stopTimeout"], ports, replicas=replicas)


def bicep(path):
    return parsed(path.read_text())


@functools.cache
def parsed(text):
    return BicepParser().parse(text=text)


def container_apps(folder, name):
    given = json.loads((folder / f"{name}.json").read_text())["parameters"]
    file = bicep(folder / "containerapp.bicep")
    known = {key: one.get("default") for key, one in file["parameters"].items()}
    known |= {key: one["value"] for key, one in given.items()}
    known |= {key: one["value"] for key, one in file["variables"].items()}
    properties = file["resources"]["app"]["config"]["properties"]
    template = properties["template"]
    container = template["containers"][0]
    fixed = container["env"]["function"]["parameters"]["arg_1"]
    environment = {one["name"]: computed(one["value"], known) for one in fixed}
    probes = [probe["httpGet"] for probe in container["probes"]]
    return Deployment(
        f"container apps with {name}.json",
        environment | (known["settings"] or {}),
        computed(template["terminationGracePeriodSeconds"], known),
        {probe["port"] for probe in probes} | {properties["configuration"]["ingress"]["targetPort"]},
        {probe["path"] for probe in probes},
        tuple(computed(template["scale"][one], known) for one in ("minReplicas", "maxReplicas")),
        set(known["secrets"]),
    )


def computed(value, known):
    """What a Bicep expression comes to, of the few kinds that the settings are made by."""
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, dict) and "function" in value:
        assert value["function"]["type"] == "string", value
        return str(computed(value["function"]["parameters"]["value_to_convert"], known))
    if isinstance(value, dict) and "operator" in value:
        operator = value["operator"]
        assert operator["type"] == "substract", value  # So the parser spells it.
        return computed(operator["operands"]["operand_1"], known) - computed(operator["operands"]["operand_2"], known)
    return value


def systemd(folder):
    lines = (folder / "callgate.service").read_text().splitlines()
    own = [line.removeprefix("Environment=") for line in lines if line.startswith("Environment=")]
    grace = next(line for line in lines if line.startswith("TimeoutStopSec="))
    environment = dict(one.split("=", 1) for one in own) | env_file(folder / "callgate.env")
    secrets = {line.split("=")[1].split(":")[0] for line in lines if line.startswith("LoadCredential=")}
    return Deployment("systemd", environment, int(grace.split("=")[1]), secrets=secrets)


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])
