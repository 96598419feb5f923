"""What is in deploy/: valid, startable, and patient enough for the calls that run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from dialog.cli.app import app
from dialog.testing.nats_server import nats_server_binary

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def everything() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in documents(path)]


def find(kind: str, name: str) -> dict[str, Any]:
    return next(each for each in everything() if each["kind"] == kind and each["metadata"]["name"] == name)


def container(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = find("Deployment", name)["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of them; fails as it would."""
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(group.make_context("dialog", list(arguments)), list(arguments))
    return command.make_context(name, rest).params


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_is_what_kubernetes_takes(path):
    for document in documents(path):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomization_has_every_manifest():
    [kustomization] = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    assert sorted(kustomization["resources"]) == sorted(p.name for p in MANIFESTS if p.stem != "kustomization")


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_a_pod_starts_with_arguments_that_the_command_line_takes(role):
    _, spec = container(role)
    params = parsed(spec["args"])
    assert params["nats"] == "nats://nats:4222"
    ports = {port["containerPort"] for port in spec["ports"]}
    assert (params.get("port") if role == "gateway" else params["health_port"]) in ports


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_no_deployment_cuts_a_call_that_may_still_run(role):
    pod, spec = container(role)
    params = parsed(spec["args"])
    assert pod["terminationGracePeriodSeconds"] > params["drain_s"] + params.get("leave_s", 0.0) + 30


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_probes_services_and_budgets_fit_their_pods(role):
    deployment = find("Deployment", role)
    _, spec = container(role)
    names = {port["name"] for port in spec["ports"]}
    assert {spec["readinessProbe"]["httpGet"]["port"], spec["livenessProbe"]["httpGet"]["port"]} <= names
    assert spec["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert spec["livenessProbe"]["httpGet"]["path"] == "/health"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert find("PodDisruptionBudget", role)["spec"]["selector"]["matchLabels"] == labels
    scaled = find("HorizontalPodAutoscaler", role)["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", role)


def test_settings_in_the_secrets_are_settings_that_exist():
    known = (ROOT / "docs" / "environment.md").read_text() + (
        ROOT / "examples" / "nats_fleet" / ".env.template"
    ).read_text()
    for role in ("gateway", "worker"):
        for name in find("Secret", f"dialog-{role}")["stringData"]:
            assert re.search(rf"\b{name}\b", known), name


def test_nats_takes_its_configuration(tmp_path):
    config = tmp_path / "nats.conf"
    config.write_text(find("ConfigMap", "nats")["data"]["nats.conf"].replace("$POD_NAME", "nats-0"))
    checked = subprocess.run(
        [nats_server_binary(), "-c", str(config), "-t"], capture_output=True, text=True, timeout=20, check=False
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout


def test_compose_starts_the_same_roles():
    [compose] = documents(DEPLOY / "compose.yaml")
    services = compose["services"]
    assert set(services) == {"nats", "gateway", "worker"}
    for role in ("gateway", "worker"):
        service = services[role]
        params = parsed(service["command"])
        assert params["nats"] == "nats://nats:4222"
        assert service["depends_on"]["nats"]["condition"] == "service_healthy"
        minutes = int(re.fullmatch(r"(\d+)m", service["stop_grace_period"])[1])
        assert minutes * 60 > params["drain_s"] + params.get("leave_s", 0.0) + 30
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_image_is_made_of_files_and_extras_that_exist():
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
    project = (ROOT / "pyproject.toml").read_text()
    for extra in re.search(r"'\.\[(.+)\]'", text)[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
