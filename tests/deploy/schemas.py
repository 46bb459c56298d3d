"""Holds each file against the schema that its reader has for it."""

import builtins
import json
import typing
from pathlib import Path

import azure.mgmt.appcontainers.types as container_apps
import botocore.session
import botocore.validate
import check_jsonschema
import jsonschema
import kubernetes_validate
import typing_extensions

import read


def compose(root):
    vendored = Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor/compose-spec.json"
    schema = jsonschema.Draft202012Validator(json.loads(vendored.read_text()))
    for name in "docker-compose.yml", "docker-compose.prod.yml":
        for document in read.read_yaml(root / "deploy" / name):
            for error in schema.iter_errors(read.without_resets(document)):
                yield f"{name}: {error.json_path}: {error.message}"


def kubernetes(root):
    for path in sorted((root / "deploy/kubernetes").glob("*.yaml")):
        for document in read.read_yaml(path):
            if document["kind"] == "ScaledObject":
                yield from scaler(path, document["spec"])
                continue
            if document["kind"] == "PodMonitor":
                yield from monitor(path, document["spec"])
                continue
            try:
                kubernetes_validate.validate(document, "1.37", strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{path.name}: {document['kind']}: {error.message}"


def scaler(path, spec):
    """KEDA's schema is not at hand: this is what its documentation asks for."""
    if spec["scaleTargetRef"]["name"] != "callgate" or not spec["minReplicaCount"] < spec["maxReplicaCount"]:
        yield f"{path.name}: it scales nothing"
    for trigger in spec["triggers"]:
        missing = {"serverAddress", "query", "threshold"} - trigger["metadata"].keys()
        if trigger["type"] != "prometheus" or missing:
            yield f"{path.name}: a trigger of type {trigger['type']} without {missing}"
        if not all(isinstance(value, str) for value in trigger["metadata"].values()):
            yield f"{path.name}: metadata are texts"


def monitor(path, spec):
    """Nor is that of the Prometheus operator: this is what it takes to scrape every replica, and what the rules ask for."""
    pod = read.read_yaml(path.parent / "deployment.yaml")[0]["spec"]["template"]
    secret = read.read_yaml(path.parent / "secret.example.yaml")[0]
    labels = pod["metadata"]["labels"]
    for unknown in spec.keys() - {"selector", "jobLabel", "podMetricsEndpoints"}:
        yield f"{path.name}: {unknown} is none of the fields that are looked at"
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        yield f"{path.name}: it selects no pod of the deployment"
    if labels.get(spec.get("jobLabel")) != "callgate":
        yield f"{path.name}: the job is not callgate"
    ports = [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]]
    [endpoint] = spec["podMetricsEndpoints"]
    for unknown in endpoint.keys() - {"port", "path", "interval", "authorization", "relabelings"}:
        yield f"{path.name}: {unknown} is none of the fields that are looked at"
    if endpoint["port"] not in ports:
        yield f"{path.name}: no container has a port {endpoint['port']}"
    token = endpoint["authorization"]["credentials"]
    if token["name"] != secret["metadata"]["name"] or token["key"] not in secret["stringData"]:
        yield f"{path.name}: there is no secret {token['name']} with {token['key']}"
    if {"action": "labeldrop", "regex": "endpoint"} not in endpoint["relabelings"]:
        yield f"{path.name}: the port takes the place of the label endpoint"


def ecs(root):
    model = botocore.session.get_session().get_service_model("ecs")
    service = json.loads((root / "deploy/ecs/service.json").read_text())
    documents = [("RegisterTaskDefinition", read.rendered(root / "deploy", name)) for name in ("production", "staging")]
    for operation, document in [*documents, ("CreateService", service)]:
        shape = model.operation_model(operation).input_shape
        report = botocore.validate.ParamValidator().validate(document, shape)
        if report.has_errors():
            yield f"ecs: {operation}: {report.generate_report()}"
        # The validator lets names pass that nobody knows.
        for unknown in unknown_names(document, shape, operation):
            yield f"ecs: {unknown}: there is no such field"


def unknown_names(value, shape, path):
    if shape.type_name == "structure":
        for key, one in value.items():
            if key in shape.members:
                yield from unknown_names(one, shape.members[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif shape.type_name == "list":
        for one in value:
            yield from unknown_names(one, shape.member, path)


def bicep(root):
    app = read.bicep(root / "deploy/azure/containerapp.bicep")["resources"]["app"]
    config = {key: value for key, value in app["config"].items() if key != "name"}
    for mistake in unlike(config, container_apps.ContainerApp, "containerApps"):
        yield f"containerapp.bicep: {mistake}"


class Names(dict):
    """The package names its enums for type checkers only: anything goes there."""

    def __missing__(self, name):
        if hasattr(builtins, name) or hasattr(container_apps, name):
            raise KeyError(name)
        return typing.Any


def unlike(value, wanted, path):
    """Where a value is not as the resource provider's types say; what is computed passes."""
    origin, inside = typing.get_origin(wanted), typing.get_args(wanted)
    if isinstance(value, dict) and "loop_type" in value:
        value = [value["config"]]
    if isinstance(value, dict) and value.get("function", {}).get("type") == "concat":
        value = value["function"]["parameters"]["arg_1"]
    if isinstance(value, dict) and value.keys() & {"function", "operator"}:
        return
    if origin is list:
        if not isinstance(value, list):
            yield f"{path}: a list"
            return
        for number, one in enumerate(value):
            yield from unlike(one, inside[0], f"{path}[{number}]")
    elif origin is dict:
        for key, one in value.items():
            yield from unlike(one, inside[1], f"{path}.{key}")
    elif typing_extensions.is_typeddict(wanted):
        if not isinstance(value, dict):
            yield f"{path}: an object"
            return
        fields = typing_extensions.get_type_hints(wanted, vars(container_apps), Names())
        for key, one in value.items():
            if key in fields:
                yield from unlike(one, fields[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: there is no such property"
    elif wanted in (str, int, bool) and type(value) is not wanted and not isinstance(value, str):
        yield f"{path}: {value!r} is no {wanted.__name__}"


def bicep_parameters(root):
    known = read.bicep(root / "deploy/azure/containerapp.bicep")["parameters"]
    # Given by the workflow.
    needed = {name for name, one in known.items() if "default" not in one} - {"image", "registry"}
    for name in "production", "staging":
        given = json.loads((root / f"deploy/azure/{name}.json").read_text())["parameters"].keys()
        for parameter in given - known.keys():
            yield f"{name}.json: containerapp.bicep has no parameter {parameter}"
        for parameter in needed - given:
            yield f"{name}.json: {parameter} is not given"
