"""Alerts and dashboard ask for what there is: promtool parses and tests them, a running relay has their metrics."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from cryptography import x509

from tests.packaging.programs import ROOT, program
from tests.support.app import OTP, Talk, letter
from tests.support.relay import RelayProcess, get, upstream_keys, write_config
from tests.support.tls import Certificates
from tests.support.upstream import Upstream
from tests.test_project import section, table_rows

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/otp-relay.json").read_text())
OPERATING = (ROOT / "docs/operating.md").read_text()
_METRIC = re.compile(r"\b(?:relay|process)_[a-z_]+\b(?!=)")
_GRAFANA = {"$__rate_interval": "5m", "$__range": "3h"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Of the dashboard, as Grafana hands them to Prometheus."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [one["expr"] for one in DASHBOARD["annotations"]["list"]]
    for text in found:
        for variable, value in _GRAFANA.items():
            text = text.replace(variable, value)
        yield text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scrape(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> AsyncIterator[str]:
    """/metrics of a relay that has sent a code."""
    directory = tmp_path_factory.mktemp("scrape")
    own = certificates.good
    secured = {
        "address": "127.0.0.1:0",
        "tls": "starttls",
        "cert_file": str(own.cert_file),
        "key_file": str(own.key_file),
    }
    async with Upstream(tls="starttls", certificate=own) as upstream:
        upstreams = {"one": upstream_keys(upstream, certificates, host="localhost")}
        config = write_config(directory, upstreams, workers=0, listen=[{"address": "127.0.0.1:0"}, secured])
        async with RelayProcess(config) as relay:
            yield await _scraped(relay, upstream)


async def _scraped(relay: RelayProcess, upstream: Upstream) -> str:
    async with Talk(relay.smtp) as app:
        await app.submit(letter(sender=OTP), OTP, "a@example.net")
    await upstream.wait_for(1)
    return (await get(relay, "/metrics")).body


@pytest.mark.asyncio(loop_scope="module")
async def test_a_running_relay_has_every_metric_that_alerts_and_dashboard_ask_for(scrape: str) -> None:
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", scrape, re.MULTILINE))
    known = set(types)
    for name, kind in types.items():
        if kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    asked = {name for text in (*expressions(), *(rule["expr"] for rule in rules())) for name in _METRIC.findall(text)}
    assert len(asked) > 30
    assert asked - known == set()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_ends_of_certificates_are_shown(scrape: str, certificates: Certificates) -> None:
    found = re.findall(
        r'^relay_certificate_expiry_timestamp_seconds\{name="(.*)",of="(.*)"\} (\S+)$', scrape, re.MULTILINE
    )
    certificate = x509.load_pem_x509_certificate(certificates.good.cert_file.read_bytes())
    ends_at = certificate.not_valid_after_utc.timestamp()
    assert {(of, name): float(value) for name, of, value in found} == {
        ("listener", "127.0.0.1:0"): ends_at,
        ("upstream", "one"): ends_at,
    }


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.real
async def test_promtool_finds_nothing_in_the_metrics_of_a_running_relay(scrape: str) -> None:
    assert program("promtool", "check", "metrics", given=scrape) == ""


@pytest.mark.real
def test_promtool_accepts_the_rules() -> None:
    assert f"{len(rules())} rules found" in program("promtool", "check", "rules", ALERTS)


@pytest.mark.real
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    program("promtool", "test", "rules", ALERTS.with_name("alerts_test.yaml"))


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    tests = yaml.safe_load(ALERTS.with_name("alerts_test.yaml").read_text())["tests"]
    samples = [one["exp_samples"] for test in tests for one in test["promql_expr_test"]]
    fired = {re.findall(r'"(\w+)"', sample["labels"])[0] for one in samples for sample in one}
    assert fired == set(alerts())
    assert any(one == [] for one in samples)


@pytest.mark.real
def test_promtool_parses_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [{"record": f"dashboard:n{n}", "expr": text} for n, text in enumerate(expressions())]
    assert not [one for one in recorded if re.search(r"\$__", one["expr"])]
    path = tmp_path / "dashboard.yaml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in program("promtool", "check", "rules", path)


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    headings = set(re.findall(r"^#+ (.+)$", OPERATING, re.MULTILINE))
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert set(rule["annotations"]) == {"summary", "description", "section"}, name
        page, _, heading = rule["annotations"]["section"].partition(", ")
        assert page == "docs/operating.md"
        assert heading in headings, name


def test_the_alerts_are_listed_with_their_severity() -> None:
    rows = table_rows(section(OPERATING, "Alerts"))
    listed = {row[0].strip("`"): row[1] for row in rows if row[1] in ("page", "ticket")}
    assert listed == {name: rule["labels"]["severity"] for name, rule in alerts().items()}


def test_each_burn_rate_that_an_alert_asks_for_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked_for = {name for rule in alerts().values() for name in re.findall(r"relay:\w+:\w+", rule["expr"])}
    assert asked_for == recorded
    assert all(name.rpartition("rate")[2] in rule["expr"] for rule in rules() if (name := rule.get("record")))


def test_the_panels_of_the_dashboard_stand_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identifiers) == len(set(identifiers))
    assert all(panel["description"] for panel in panels())


def test_the_dashboard_works_with_any_data_source_and_job() -> None:
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {
        "datasource", "instance", "job", "lane"
    }  # fmt: skip
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels())
    assert all('job="$job"' in text for text in expressions())
