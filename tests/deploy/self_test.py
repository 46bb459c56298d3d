"""A check that cannot fail is none: each finds what is wrong in a copy of the files."""

import shutil
import sys
import tempfile
from pathlib import Path

import files
import schemas

ROOT = Path(__file__).parents[2]
WRONG = [
    (schemas.compose, "deploy/docker-compose.yml", "read_only: true", "readonly: true", "readonly"),
    (schemas.kubernetes, "deploy/kubernetes/deployment.yaml", "failureThreshold: 60", "failures: 60", "failures"),
    (schemas.kubernetes, "deploy/kubernetes/scaler.yaml", "query:", "queries:", "query"),
    (schemas.kubernetes, "deploy/kubernetes/monitor.yaml", "jobLabel: app", "jobLabel: name", "the job is not callgate"),
    (schemas.kubernetes, "deploy/kubernetes/monitor.yaml", "ops-read-token", "ops-look-token", "ops-look-token"),
    (schemas.kubernetes, "deploy/kubernetes/monitor.yaml", "regex: endpoint", "regex: pod", "endpoint"),
    (schemas.kubernetes, "deploy/kubernetes/monitor.yaml", "interval:", "scrapeInterval:", "scrapeInterval"),
    (schemas.ecs, "deploy/ecs/task-definition.json", '"stopTimeout": 120', '"stopTimeout": "120"', "stopTimeout"),
    (schemas.ecs, "deploy/ecs/service.json", '"desiredCount"', '"count"', "count"),
    (schemas.bicep, "deploy/azure/containerapp.bicep", "minReplicas: minReplicas", "least: minReplicas", "least"),
    (schemas.bicep, "deploy/azure/containerapp.bicep", "'SELECT count(*) FROM calls WHERE rank < 90'", "90", "query"),
    (schemas.bicep_parameters, "deploy/azure/staging.json", '"maxReplicas"', '"replicas"', "replicas"),
    (files.settings, "deploy/kubernetes/config.yaml", "MAX_CONNECTIONS:", "MAX_SOCKETS:", "MAX_SOCKETS"),
    (files.settings, "deploy/docker-compose.prod.yml", "OPS_TOKEN_FILE:", "LISTEN_FILE:", "LISTEN_FILE"),
    (files.staging, "deploy/staging.env", "GLOBAL_MAX_CONCURRENCY=50", "GLOBAL_MAX_CONCURRENCY=60", "is 60, and was 50"),
    (files.staging, "deploy/azure/staging.json", '"value": 50', '"value": 60', "is 60, and was 50"),
    (files.replicas, "deploy/kubernetes/scaler.yaml", "maxReplicaCount: 10", "maxReplicaCount: 12", "2 to 12"),
    (files.replicas, "deploy/azure/containerapp.bicep", "value: string(minReplicas)", "value: string(maxReplicas)", "10 to 10"),
    (files.replicas, "deploy/ecs/service.json", '"desiredCount": 3', '"desiredCount": 2', "2 to 2"),
    (files.grace, "deploy/azure/containerapp.bicep", "graceSeconds - 35", "graceSeconds - 5", "600 s"),
    (files.grace, "deploy/ecs/task-definition.json", '"stopTimeout": 120', '"stopTimeout": 121', "Fargate"),
    (files.grace, "deploy/systemd/callgate.service", "TimeoutStopSec=335", "TimeoutStopSec=300", "systemd"),
    (files.grace, "deploy/docker-compose.yml", 'TERMINATION_GRACE_SECONDS: "335"', 'TERMINATION_GRACE_SECONDS: "340"', "told of 340"),
    (files.grace, "deploy/kubernetes/deployment.yaml", "sleep: {seconds: 5}", "sleep: {seconds: 10}", "killed after 1830 s"),
    (files.grace, "deploy/azure/containerapp.bicep", "value: string(graceSeconds)", "value: '580'", "told of 580"),
    (files.grace, "deploy/systemd/callgate.service", "TimeoutStopSec=335", "TimeoutStopSec=340", "killed after 340 s"),
    (files.secrets, "deploy/docker-compose.prod.yml", " ops_read_token, ", " ", "OPS_READ_TOKEN_FILE"),
    (files.secrets, "deploy/kubernetes/secret.example.yaml", "ops-read-token:", "ops-look-token:", "OPS_READ_TOKEN_FILE"),
    (files.secrets, "deploy/azure/containerapp.bicep", "  'ops-read-token'\n", "", "OPS_READ_TOKEN_FILE"),
    (files.secrets, "deploy/systemd/callgate.service", "LoadCredential=ops_read_token:", "LoadCredential=ops_look_token:", "OPS_READ_TOKEN_FILE"),
    (files.tokens, "deploy/systemd/callgate.service", "Environment=OPS_READ_TOKEN_FILE=", "Environment=OPS_TOKEN_FILE=", "OPS_READ_TOKEN"),
    (files.tokens, "deploy/ecs/task-definition.json", '"OPS_READ_TOKEN"', '"OPS_TOKEN"', "OPS_READ_TOKEN"),
    (files.ports, "deploy/kubernetes/deployment.yaml", "containerPort: 5050", "containerPort: 5051", "5051"),
    (files.routes, "deploy/azure/containerapp.bicep", "/health/ready", "/ready", "/ready"),
    (files.routes, "deploy/kubernetes/monitor.yaml", "/metrics", "/metric", "/metric"),
    (files.routes, "deploy/kubernetes/ingress.yaml", "/twilio/media", "/media", "/media"),
    (files.opened, "deploy/kubernetes/ingress.yaml", "path: /prompts/,", "path: /v1/,", "/v1/"),
    (files.opened, "deploy/ecs/listener.yaml", "/webhook/*,", "", "/webhook/*"),
    (files.opened, "deploy/ecs/listener.yaml", "Type: fixed-response", "Type: forward", "/* is opened"),
    (files.opened, "deploy/nginx.conf", "web/ws$)", "web/ws$|calls/)", "/calls/*"),
    (files.opened, "docs/deploy/azure.md", "/twilio/media", "/media", "/twilio/media"),
    (files.metrics, "deploy/ecs/alarms.yaml", "MetricName: events_dead", "MetricName: events_lost", "events_lost"),
    (files.metrics, "deploy/kubernetes/scaler.yaml", "max(calls_active{", "max(calls_alive{", "calls_alive"),
    (files.runbook, "deploy/prometheus/alerts.yml", "#callgatedown", "#callgategone", "#callgategone"),
    (files.runbook, "deploy/ecs/alarms.yaml", "AlarmName: callgate-busy", "AlarmName: callgate-full", "callgate-full"),
    (files.runbook, "deploy/ecs/alarms.yaml", "#callgatestoreaway", "#callgateredisaway", "#callgateredisaway"),
    (files.runbook, "docs/runbook.md", "sed 's|runbook_url: docs/|", "sed 's|runbook: docs/|", "sed"),
    (files.toolchain, "deploy/Dockerfile", "rust:1", "rust:2", "Dockerfile"),
    (files.image_context, ".dockerignore", "!templates", "!docs", "templates"),
    (files.actions_are_pinned, ".github/workflows/test.yml", "actions/checkout@3d3c42e5", "actions/checkout@v7#", "checkout"),
    (files.workflow_scripts, ".github/workflows/roll-out.yml", '[[ $running = "$task" ]]', "[[ $running = $task ]", "roll-out.yml"),
    (files.workflow_scripts, ".github/workflows/test.yml", "run: scripts/test", "run: scripts/test ${{ github.head_ref }}", "expression"),
    (files.compose_nginx, "deploy/nginx.conf", "proxy_read_timeout 75s", "proxy_read_timeout 60s", "nginx.compose.conf"),
    (files.redis_rights, "docs/deploy/compose.md", "+hgetall", "+hgetall +keys", "compose.md"),
]


def main():
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in "deploy", ".github", "scripts", "src", "templates", "migrations", "benches", "docs":
            shutil.copytree(ROOT / name, copy / name)
        for name in "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", ".env.example", ".dockerignore", "CHANGELOG.md", "rust-toolchain.toml", "Cargo.toml", "Cargo.lock", "build.rs":
            shutil.copy(ROOT / name, copy / name)
        for check, name, right, wrong, told in WRONG:
            path = copy / name
            text = path.read_text()
            assert right in text, f"{name} has no {right}"
            path.write_text(text.replace(right, wrong))
            found = list(check(copy))
            path.write_text(text)
            if not any(told in mistake for mistake in found):
                missed += 1
                print(f"{check.__name__} does not see that {name} has {wrong}: {found}", file=sys.stderr)
    return missed


if __name__ == "__main__":
    sys.exit(bool(main()))
