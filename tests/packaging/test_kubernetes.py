"""deploy/kubernetes and deploy/helm: the manifests' promises, and the chart rendered by Helm."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from relay.config.load import load
from relay.config.model import Config
from tests.packaging.programs import ROOT, program

CHART = ROOT / "deploy/helm/otp-relay"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SECRETS = {f"/run/secrets/otp-relay/{key}" for key in ("password", "http-token", "read-token")}
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
LEAST = {"existingSecret": "mail", "upstream": {"host": "smtp.example.com"}}
ALL = {
    "existingSecret": "mail",
    "replicas": 2,
    "image": {"repository": "registry.example.com/otp-relay", "digest": "sha256:" + "a" * 64},
    "upstream": {"preset": "postmark", "port": 2525, "tls": "starttls", "username": "user"},
    "env": {"RELAY_OTP_SENDERS": "*@auth.example.com", "RELAY_WORKERS": 0},
    "config": "hostname: relay.example.com\n",
    "shutdown": 60,
    "persistence": {"enabled": False},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {"enabled": True, "smtpFrom": [{"namespaceSelector": {}}]},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
}

Manifest = dict[str, Any]


def manifests(text: str) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


def shipped(name: str) -> list[Manifest]:
    return manifests((ROOT / f"deploy/kubernetes/{name}.yaml").read_text())


def rendered(folder: Path, values: Manifest) -> list[Manifest]:
    """The chart by `helm template`, which checks the values with the schema, too."""
    path = folder / "values.json"
    path.write_text(json.dumps(values))
    home = {"HELM_CACHE_HOME": str(folder), "HELM_CONFIG_HOME": str(folder), "HELM_DATA_HOME": str(folder)}
    return manifests(program("helm", "template", "mail", CHART, "--values", path, environment=home))


def one(kind: str, among: list[Manifest]) -> Manifest:
    (found,) = [manifest for manifest in among if manifest["kind"] == kind]
    return found


def relay_of(workload: Manifest) -> tuple[Manifest, Manifest]:
    """The pod's spec, and its container of the relay."""
    pod = workload["spec"]["template"]["spec"]
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    (container,) = [container for container in containers if container["name"] == "otp-relay"]
    return pod, container


def config_of(container: Manifest) -> Config:
    """The image's configuration with the variables of the container."""
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    for name in [name for name in environ if name.endswith("_FILE")]:
        assert environ.pop(name) in SECRETS
        environ[name.removesuffix("_FILE")] = "hunter2" + name
    return load(ROOT / "config/container.yaml", environ).config


def holds(workload: Manifest) -> None:
    """What each of them promises."""
    pod, container = relay_of(workload)
    config = config_of(container)
    context = {**pod["securityContext"], **container["securityContext"]}
    assert (context["runAsNonRoot"], context["runAsUser"], context["fsGroup"]) == (True, 1525, 1525)
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    stop = container.get("lifecycle", {}).get("preStop", {}).get("exec", {"command": ["sleep", "0"]})["command"]
    assert pod["terminationGracePeriodSeconds"] > int(stop[1]) + config.shutdown_s
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            assert str(config.http.address) == f"0.0.0.0:{ports[container[name]['httpGet']['port']]}"
    assert {"requests", "limits"} == set(container["resources"])
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) <= volumes
    assert {"/var/lib/otp-relay", "/tmp", "/run/secrets/otp-relay"} <= set(mounts)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_sidecar_holds_what_it_promises() -> None:
    workload = one("Deployment", shipped("sidecar"))
    holds(workload)
    _, container = relay_of(workload)
    assert container["restartPolicy"] == "Always"
    config = config_of(container)
    assert (str(config.listen[0].address), config.default_lane) == ("127.0.0.1:2525", "otp")


def test_the_stateful_set_holds_what_it_promises() -> None:
    among = shipped("statefulset")
    workload = one("StatefulSet", among)
    holds(workload)
    services = {manifest["metadata"]["name"]: manifest for manifest in among if manifest["kind"] == "Service"}
    assert services[workload["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert all(service["spec"]["selector"].items() <= labels.items() for service in services.values())


@pytest.mark.real
@pytest.mark.parametrize("values", [LEAST, ALL], ids=["least", "all"])
def test_the_chart_holds_what_it_promises(values: Manifest, tmp_path: Path) -> None:
    among = rendered(tmp_path, values)
    workload = one("StatefulSet", among)
    if "config" in values:
        assert one("ConfigMap", among)["data"] == {"relay.yaml": values["config"]}
    holds(workload)
    names = {manifest["metadata"]["name"] for manifest in among if manifest["kind"] == "Service"}
    assert workload["spec"]["serviceName"] in names
    kinds = {manifest["kind"] for manifest in among}
    if "ServiceMonitor" in kinds:
        (endpoint,) = one("ServiceMonitor", among)["spec"]["endpoints"]
        assert endpoint["authorization"]["credentials"] == {"name": "mail", "key": "read-token"}
    optional = {"ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor"}
    assert kinds - {"Service", "StatefulSet"} == (optional if values is ALL else set())


@pytest.mark.real
def test_the_chart_and_the_manifest_make_the_same_pod(tmp_path: Path) -> None:
    ours, _ = relay_of(one("StatefulSet", shipped("statefulset")))
    env = {"RELAY_OTP_SENDERS": "*@auth.example.com"}
    values = {"existingSecret": "otp-relay", "upstream": {"host": "smtp.example.com", "username": "app"}, "env": env}
    charts, _ = relay_of(one("StatefulSet", rendered(tmp_path, values)))
    for pod in (charts, ours):
        (container,) = pod["containers"]
        container["env"] = {one["name"]: one["value"] for one in container["env"] if one["name"] != "RELAY_SHUTDOWN"}
        container.pop("imagePullPolicy", None)
        pod.pop("terminationGracePeriodSeconds")
    assert charts == ours


@pytest.mark.real
def test_helm_lint_finds_nothing_and_an_upstream_is_required(tmp_path: Path) -> None:
    settings = ("--set", "existingSecret=mail,upstream.host=smtp.example.com")
    assert "1 chart(s) linted, 0 chart(s) failed" in program("helm", "lint", "--strict", CHART, *settings)
    with pytest.raises(AssertionError, match="without one the relay has no upstream"):
        rendered(tmp_path, {"existingSecret": "mail"})


def test_the_defaults_pass_their_schema_once_a_secret_is_named() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    for values in ({**DEFAULTS, "existingSecret": "mail"}, LEAST, ALL):
        jsonschema.validate(values, SCHEMA)


def wrong_values() -> Iterator[tuple[str, Manifest]]:
    yield "no secret", DEFAULTS
    for name, key, value in (
        ("a key that isn't there", "replica", 2),
        ("a text for a number", "replicas", "two"),
        ("a password in env", "env", {"RELAY_PASSWORD": "hunter2"}),
        ("a list of networks", "allow", ["10.0.0.0/8"]),
        ("a store that two nodes write", "persistence", {"accessModes": ["ReadWriteMany"]}),
        ("a drain as a text", "shutdown", "20s"),
        ("a misspelt kind of TLS", "upstream", {"tls": "ssl"}),
    ):
        yield name, {**copy.deepcopy(DEFAULTS), "existingSecret": "mail", key: value}


@pytest.mark.parametrize(("name", "values"), list(wrong_values()))
def test_the_schema_refuses(name: str, values: Manifest) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_each_value_has_its_schema_and_the_other_way_round() -> None:
    def keys(schema: Manifest, values: Any, at: str = "") -> None:
        if "properties" not in schema:
            return
        assert set(schema["properties"]) - {"global"} == set(values), at
        for name, below in schema["properties"].items():
            if name != "global":
                keys(below, values[name], f"{at}.{name}")

    keys(SCHEMA, DEFAULTS)
