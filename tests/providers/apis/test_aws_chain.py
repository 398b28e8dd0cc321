"""Sources of AWS credentials: which one the environment names, what each is asked, what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.loaders import Loader  # type: ignore[import-untyped]
from botocore.regions import EndpointResolver  # type: ignore[import-untyped]
from botocore.utils import ContainerMetadataFetcher  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.api import Answer, Credentials
from relay.providers.apis.aws_chain import (
    MOST_BYTES,
    Container,
    Exchange,
    Fixed,
    HttpRequest,
    Instance,
    Refusal,
    Source,
    Temporary,
    WebIdentity,
    renewal_at,
    source_of,
)

REGION = "eu-west-1"
NOW = 1_790_000_000.0
END = "2026-09-21T15:13:20Z"
END_S = NOW + 3_600
KEY, SECRET, SESSION = "ASIAKEYKEYKEYKEY", "secret/+secret", "session/+token=="
FOUND = Credentials(access_key_id=KEY, secret_access_key=SECRET, session_token=SESSION, region=REGION)
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "own-secret"}
WEB = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/mail"}
RELATIVE = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/0b6e?id=1"}
FULL = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}
OFF = {"AWS_EC2_METADATA_DISABLED": "true"}
STS_ANSWER = f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:mail:relay</SubjectFromWebIdentityToken>
    <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/mail/otp-relay</Arn></AssumedRoleUser>
    <Credentials>
      <SessionToken>{SESSION}</SessionToken>
      <SecretAccessKey>
        {SECRET}
      </SecretAccessKey>
      <Expiration>{END}</Expiration>
      <AccessKeyId>{KEY}</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
STS_ERROR = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error><Type>Sender</Type><Code>{code}</Code><Message>Token KEEP-ME-SECRET is expired</Message></Error>
</ErrorResponse>"""


def answer(body: str | bytes | None, status: int = 200) -> Answer:
    return Answer(status, {}, body.encode() if isinstance(body, str) else body)


def as_json(**changes: object) -> str:
    fields = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": SESSION, "Expiration": END}
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not None})


def carried_out(exchange: Exchange, answers: Sequence[Answer]) -> tuple[list[HttpRequest], Temporary | Refusal]:
    """The requests, and what came of them."""
    requests: list[HttpRequest] = []
    try:
        requests.append(next(exchange))
        for one in answers:
            request = exchange.send(one)
            requests.append(request)
    except StopIteration as end:
        outcome: Temporary | Refusal = end.value
        return requests, outcome
    raise AssertionError("it asks for more than was expected")


def named(environ: Mapping[str, str]) -> Source:
    source = source_of(environ, REGION)
    assert not isinstance(source, Refusal), source
    return source


def web_identity(environ: Mapping[str, str] = WEB) -> WebIdentity:
    source = named(environ)
    assert isinstance(source, WebIdentity)
    return source


def container(environ: Mapping[str, str] = FULL) -> Container:
    source = named(environ)
    assert isinstance(source, Container)
    return source


def instance(environ: Mapping[str, str] | None = None) -> Instance:
    source = named(environ or {})
    assert isinstance(source, Instance)
    return source


ORDER = [
    ({**KEYS, **WEB, **RELATIVE, **FULL}, Fixed),
    ({**WEB, **RELATIVE, **FULL}, WebIdentity),
    ({**RELATIVE, **FULL}, Container),
    (FULL, Container),
    ({}, Instance),
    ({"AWS_EC2_METADATA_DISABLED": "false"}, Instance),
    (OFF, Refusal),
    ({"AWS_EC2_METADATA_DISABLED": "TRUE"}, Refusal),
    ({**FULL, **OFF}, Container),
    # An empty variable counts as absent.
    ({**dict.fromkeys((*KEYS, *WEB, *RELATIVE), ""), **FULL}, Container),
    (dict.fromkeys((*KEYS, *WEB, *RELATIVE, *FULL, *OFF), ""), Instance),
    # A role without a token file belongs to other programs.
    ({"AWS_ROLE_ARN": WEB["AWS_ROLE_ARN"]}, Instance),
]


@pytest.mark.parametrize(("environ", "kind"), ORDER)
def test_the_first_source_in_the_sdks_order_is_asked(environ: dict[str, str], kind: type[object]) -> None:
    assert type(source_of(environ, REGION)) is kind


HALVES = [
    {"AWS_ACCESS_KEY_ID": "AKID", **FULL},
    {"AWS_ACCESS_KEY_ID": "AKID\n", "AWS_SECRET_ACCESS_KEY": "own-secret"},
    {**KEYS, "AWS_SESSION_TOKEN": "two words"},
    {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", **FULL},
    {**WEB, "AWS_ROLE_ARN": "mail-role"},
    {**WEB, "AWS_ROLE_SESSION_NAME": "a"},
    {**WEB, "AWS_ROLE_SESSION_NAME": "a b"},
    {**WEB, "AWS_ROLE_SESSION_NAME": "a" * 65},
    {**WEB, "AWS_ENDPOINT_URL_STS": "http://sts.example.com"},
    {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "@evil.example/", **FULL},
    {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ".evil.example/"},
    {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ":8080/v2/credentials"},
    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "ftp://169.254.169.254"},
    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "169.254.169.254"},
    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://169.254.169.254?x="},
    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://user:own-secret@localhost"},
]


@pytest.mark.parametrize("environ", HALVES)
def test_a_source_named_by_halves_is_refused_and_no_other_asked(environ: dict[str, str]) -> None:
    refusal = source_of(environ, REGION)
    assert isinstance(refusal, Refusal)
    assert not [value for value in environ.values() if len(value) > 1 and value in refusal.reason]


@pytest.mark.parametrize("region", ["", "eu", "eu-west-1.evil.example/", "eu-west-1@evil", "EU-WEST-1", "eu-west-1\n"])
def test_a_region_that_is_no_name_makes_no_host(region: str) -> None:
    assert isinstance(source_of(WEB, region), Refusal)


def test_keys_of_the_environment_carry_region_and_session() -> None:
    expected = Credentials(access_key_id="AKID", secret_access_key="own-secret", region=REGION)
    assert source_of(KEYS, REGION) == Fixed(expected)
    environ = {**KEYS, "AWS_SESSION_TOKEN": SESSION}
    assert source_of(environ, REGION) == Fixed(expected._replace(session_token=SESSION))


URLS = [
    "http://169.254.170.2/x", "http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/v1/credentials",
    "http://127.0.0.1:8080/", "http://127.9.9.9/", "http://[::1]:51679/x", "http://localhost/x", "http://LOCALHOST/x",
    "https://credentials.example.com/x", "https://192.0.2.1/", "http://credentials.example.com/x",
    "http://169.254.170.3/", "http://169.254.169.254/", "http://[fd00:ec2::24]/", "http://192.0.2.1/",
    "http://localhost.example.com/", "http://127.0.0.1.example.com/", "http://example.com/localhost",
    "http://example.com?localhost", "http://0.0.0.0/", "http://[::]/", "http://127.1/", "http://localhost./",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_the_hosts_that_a_container_may_ask_are_those_of_botocore(url: str) -> None:
    try:
        ContainerMetadataFetcher()._validate_allowed_url(url)
        allowed = True
    except ValueError:
        allowed = False
    source = source_of({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}, REGION)
    assert isinstance(source, Container if allowed else Refusal)


MISLEADING = [
    "http://evil.example\\@localhost/", "http://localhost@evil.example/", "https://user:pass@credentials.example/",
    "http://localhost:port/", "http://localhost:99999/", "http://[::1/", "http://local\thost/", "http:///x",
    "//localhost/x", "file:///etc/passwd", "http://localhost/#x", "http://loc\u00e4lhost/",
    "http://localhost/" + "x" * 2_000,
]  # fmt: skip


@pytest.mark.parametrize("url", MISLEADING)
def test_a_url_that_two_clients_may_read_differently_is_refused(url: str) -> None:
    assert isinstance(source_of({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}, REGION), Refusal)


REGIONS = [
    *("eu-west-1", "us-east-1", "ap-southeast-2", "us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1"),
    *("us-isob-east-1", "eu-isoe-west-1", "us-isof-south-1"),
]


@pytest.mark.parametrize("region", REGIONS)
def test_sts_is_asked_in_the_region_of_the_mail(region: str) -> None:
    resolver = EndpointResolver(Loader().load_data("endpoints"))
    suffix = resolver.get_partition_dns_suffix(resolver.get_partition_for_region(region))
    source = source_of(WEB, region)
    assert isinstance(source, WebIdentity)
    assert source.url == f"https://sts.{region}.{suffix}/"


def test_sts_may_be_asked_elsewhere() -> None:
    url = "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com"
    assert web_identity({**WEB, "AWS_ENDPOINT_URL_STS": url}).url == url


def test_a_web_identity_is_exchanged_for_credentials() -> None:
    source = web_identity()
    requests, outcome = carried_out(source.exchange("header.pay-load.sig_\n", NOW), [answer(STS_ANSWER)])
    (request,) = requests
    assert (request.method, request.url) == ("POST", "https://sts.eu-west-1.amazonaws.com/")
    assert dict(request.headers)["Content-Type"].startswith("application/x-www-form-urlencoded")
    assert parse_qs(request.body.decode(), strict_parsing=True) == {
        "Action": ["AssumeRoleWithWebIdentity"],
        "Version": ["2011-06-15"],
        "RoleArn": [WEB["AWS_ROLE_ARN"]],
        "RoleSessionName": ["otp-relay"],
        "WebIdentityToken": ["header.pay-load.sig_"],
    }
    assert outcome == Temporary(FOUND, END_S)


def test_the_sessions_name_is_that_of_the_environment() -> None:
    source = web_identity({**WEB, "AWS_ROLE_SESSION_NAME": "mail+1=a,b.c@d-e"})
    request = next(source.exchange("token", NOW))
    assert parse_qs(request.body.decode())["RoleSessionName"] == ["mail+1=a,b.c@d-e"]


@pytest.mark.parametrize("token", ["", " \n", "two words", "to\nken", "t\u00f6ken", "x" * 20_001])
def test_what_is_no_web_identity_token_is_never_sent(token: str) -> None:
    requests, outcome = carried_out(web_identity().exchange(token, NOW), [])
    assert requests == []
    assert isinstance(outcome, Refusal)


UNREADABLE_XML = [
    "",
    "{}",
    None,
    b"\xff\xfe<",
    STS_ANSWER.encode("utf-16"),
    STS_ANSWER + " " * MOST_BYTES,
    # Entities, comments and CDATA are never looked at.
    '<!DOCTYPE r [<!ENTITY k "ASIAKEYKEYKEYKEY">]>' + STS_ANSWER,
    STS_ANSWER.replace(KEY, "&k;"),
    STS_ANSWER.replace(KEY, f"<![CDATA[{KEY}]]>"),
    STS_ANSWER.replace(KEY, f"<!-- -->{KEY}"),
    STS_ANSWER.replace(KEY, f"<b>{KEY}</b>"),
    STS_ANSWER.replace(KEY, ""),
    STS_ANSWER.replace(KEY, "two words"),
    STS_ANSWER.replace(f"<AccessKeyId>{KEY}</AccessKeyId>", ""),
    STS_ANSWER.replace("<AccessKeyId>", "<AccessKeyId>other</AccessKeyId><AccessKeyId>"),
    STS_ANSWER.replace("<Credentials>", "<Credentials></Credentials><Credentials>"),
    STS_ANSWER.replace("</Credentials>", "").replace("<Credentials>", "</Credentials><Credentials>"),
    STS_ANSWER.replace(SESSION, ""),
    STS_ANSWER.replace(END, "tomorrow"),
    STS_ANSWER.replace(END, ""),
]


@pytest.mark.parametrize("body", UNREADABLE_XML)
def test_an_answer_of_sts_that_has_anything_unexpected_is_refused(body: str | bytes | None) -> None:
    _, outcome = carried_out(web_identity().exchange("token", NOW), [answer(body)])
    assert outcome == Refusal("STS sent an answer that can't be read")


STS_ERRORS = [
    (400, STS_ERROR.format(code="ExpiredTokenException"), "STS answered HTTP 400: the web identity token has expired"),
    (403, STS_ERROR.format(code="AccessDenied"), "STS answered HTTP 403: the role doesn't trust this web identity"),
    (400, STS_ERROR.format(code="KEEP-ME-SECRET"), "STS answered HTTP 400"),
    (500, "KEEP-ME-SECRET", "STS answered HTTP 500"),
    (503, None, "STS answered HTTP 503"),
    (302, STS_ANSWER, "STS answered HTTP 302"),
    (201, STS_ANSWER, "STS answered HTTP 201"),
]


@pytest.mark.parametrize(("status", "body", "reason"), STS_ERRORS)
def test_an_error_of_sts_is_a_reason_that_quotes_nothing(status: int, body: str | None, reason: str) -> None:
    _, outcome = carried_out(web_identity().exchange("token", NOW), [answer(body, status)])
    assert outcome == Refusal(reason)


CONTAINERS = [
    (RELATIVE, "", "http://169.254.170.2/v2/credentials/0b6e?id=1", None),
    ({**RELATIVE, **FULL}, "", "http://169.254.170.2/v2/credentials/0b6e?id=1", None),
    (FULL, "", FULL["AWS_CONTAINER_CREDENTIALS_FULL_URI"], None),
    (FULL, "Bearer xyz\n", FULL["AWS_CONTAINER_CREDENTIALS_FULL_URI"], "Bearer xyz"),
    (RELATIVE, "Bearer xyz", "http://169.254.170.2/v2/credentials/0b6e?id=1", "Bearer xyz"),
]


@pytest.mark.parametrize(("environ", "token", "url", "authorization"), CONTAINERS)
def test_a_containers_service_is_asked_at_its_url_with_its_token(
    environ: dict[str, str], token: str, url: str, authorization: str | None
) -> None:
    requests, outcome = carried_out(container(environ).exchange(token, NOW), [answer(as_json(RoleArn="arn:aws:x"))])
    (request,) = requests
    assert (request.method, request.url, request.body) == ("GET", url, b"")
    assert dict(request.headers).get("Authorization") == authorization
    assert outcome == Temporary(FOUND, END_S)


def test_the_token_file_of_a_container_comes_before_the_token() -> None:
    both = {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/t", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "abc"}
    source = container({**FULL, **both})
    assert (source.token_file, source.token) == ("/t", "")
    assert container({**FULL, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "abc"}).token == "abc"


@pytest.mark.parametrize("token", ["a\r\nHost: evil", "a\nb", "t\u00f6ken", "a\x00b"])
def test_a_containers_token_can_not_add_a_header_field(token: str) -> None:
    requests, outcome = carried_out(container().exchange(token, NOW), [])
    assert requests == []
    assert isinstance(outcome, Refusal)


def test_an_empty_token_file_of_a_container_is_refused() -> None:
    source = container({**FULL, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/t"})
    assert isinstance(carried_out(source.exchange("\n", NOW), [])[1], Refusal)


UNREADABLE_JSON = [
    *("", "[]", "null", "{", None, b"\xff", "[" * 60_000, as_json() + " " * MOST_BYTES),
    as_json(AccessKeyId=None),
    as_json(AccessKeyId=""),
    as_json(AccessKeyId=7),
    as_json(SecretAccessKey=["x"]),
    as_json(Token=None),
    as_json(Token="two words"),
    as_json(Token="line\r\nHost: evil"),
    as_json(Expiration=None),
    as_json(Expiration="tomorrow"),
    as_json(Expiration=True),
]


@pytest.mark.parametrize("body", UNREADABLE_JSON)
def test_an_answer_without_whole_credentials_is_refused(body: str | bytes | None) -> None:
    _, outcome = carried_out(container().exchange("", NOW), [answer(body)])
    assert isinstance(outcome, Refusal)
    assert outcome.reason.endswith(("can't be read", "answered HTTP 200"))


@pytest.mark.parametrize(("left_s", "kind"), [(-3_600, Refusal), (0, Refusal), (29, Refusal), (30, Temporary)])
def test_credentials_without_a_useful_life_are_refused(left_s: float, kind: type[object]) -> None:
    now = END_S - left_s
    outcomes = [
        carried_out(container().exchange("", now), [answer(as_json())])[1],
        carried_out(web_identity().exchange("token", now), [answer(STS_ANSWER)])[1],
    ]
    assert [type(one) for one in outcomes] == [kind, kind]


@pytest.mark.parametrize("roles", ["mail-role", "mail-role\nother\n", "mail-role\r\nother\r\n"])
def test_an_instance_is_asked_for_a_session_the_role_and_its_credentials(roles: str) -> None:
    answers = [answer("AQAEA-session==\n"), answer(roles), answer(as_json(Code="Success"))]
    requests, outcome = carried_out(instance().exchange("", NOW), answers)
    base = "http://169.254.169.254/latest"
    assert [(one.method, one.url) for one in requests] == [
        ("PUT", f"{base}/api/token"),
        ("GET", f"{base}/meta-data/iam/security-credentials/"),
        ("GET", f"{base}/meta-data/iam/security-credentials/mail-role"),
    ]
    assert [name for name, _ in requests[0].headers] == ["X-aws-ec2-metadata-token-ttl-seconds"]
    assert 1 <= int(requests[0].headers[0][1]) <= 21_600
    assert requests[1].headers == requests[2].headers == (("X-aws-ec2-metadata-token", "AQAEA-session=="),)
    assert outcome == Temporary(FOUND, END_S)


ENDPOINTS = [
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://imds.example:1338/p/"}, "http://imds.example:1338/p"),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, "http://[fd00:ec2::254]"),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv4"}, "http://169.254.169.254"),
]


@pytest.mark.parametrize(("environ", "url"), ENDPOINTS)
def test_the_metadata_service_is_where_the_environment_says(environ: dict[str, str], url: str) -> None:
    assert next(instance(environ).exchange("", NOW)).url == f"{url}/latest/api/token"


SESSION_ANSWER, ROLE_ANSWER = answer("session"), answer("role")
INSTANCE_FAULTS = [
    # There is no way back to version 1: it can be read through any program that fetches URLs for strangers.
    ([answer("no", 403)], "to the request for a session"),
    ([answer("", 404)], "to the request for a session"),
    ([answer("")], "can't be read"),
    ([answer("two words")], "can't be read"),
    ([answer("a\r\nHost: evil")], "can't be read"),
    ([SESSION_ANSWER, answer("", 404)], "the instance has no role"),
    ([SESSION_ANSWER, answer("", 401)], "to the request for the role's name"),
    ([SESSION_ANSWER, answer("")], "can't be read"),
    ([SESSION_ANSWER, answer("../../user-data")], "can't be read"),
    ([SESSION_ANSWER, answer("..")], "can't be read"),
    ([SESSION_ANSWER, answer("role?x=1")], "can't be read"),
    ([SESSION_ANSWER, ROLE_ANSWER, answer(as_json(), 500)], "HTTP 500"),
    ([SESSION_ANSWER, ROLE_ANSWER, answer("<html>")], "can't be read"),
    ([SESSION_ANSWER, ROLE_ANSWER, answer('{"Code":"AssumeRoleUnauthorizedAccess","Message":"KEEP"}')], "trusted"),
    ([SESSION_ANSWER, ROLE_ANSWER, answer(as_json(Code="Failed"))], "trusted"),
]


@pytest.mark.parametrize(("answers", "part"), INSTANCE_FAULTS)
def test_an_instance_without_credentials_is_a_reason_that_quotes_nothing(answers: list[Answer], part: str) -> None:
    requests, outcome = carried_out(instance().exchange("", NOW), answers)
    assert len(requests) == len(answers)
    assert isinstance(outcome, Refusal)
    assert part in outcome.reason
    assert "KEEP" not in outcome.reason


@pytest.mark.parametrize("late", [END_S - 29, END_S + 5_000])
def test_expired_credentials_of_an_instance_go_on_for_a_while(late: float) -> None:
    """While EC2 can't renew them, AWS goes on accepting them."""
    _, outcome = carried_out(instance().exchange("", late), [SESSION_ANSWER, ROLE_ANSWER, answer(as_json())])
    assert outcome == Temporary(FOUND, late + 600)


@given(st.floats(1e-3, 1e6))
def test_renewal_is_between_half_and_four_fifths_of_the_life(life_s: float) -> None:
    after_s = renewal_at(0.0, life_s)
    assert 0.5 * life_s <= after_s <= 0.8 * life_s
    if life_s >= 600:
        assert life_s - after_s >= 299.999


@pytest.mark.parametrize(("life_s", "after_s"), [(3_600, 2_880), (900, 600), (600, 300), (60, 30)])
def test_renewal_leaves_time_for_more_than_one_attempt(life_s: float, after_s: float) -> None:
    assert renewal_at(1_000, 1_000 + life_s) == pytest.approx(1_000 + after_s)


_PIECES = [
    *("<Credentials>", "</Credentials>", "<AccessKeyId>", "</AccessKeyId>", "<SecretAccessKey>", "</SecretAccessKey>"),
    *("<SessionToken>", "</SessionToken>", "<Expiration>", "</Expiration>", "<Code>", "</Code>", "<!", "&a;", KEY, END),
    *(
        '{"Code":',
        '"Success"',
        '{"AccessKeyId":',
        "{",
        "}",
        "[",
        ",",
        "null",
        "1e999",
        '"',
        "\ud800".encode("utf-8", "replace").decode(),
    ),
]
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=100),
    st.lists(st.sampled_from(_PIECES), max_size=30).map(lambda parts: "".join(parts).encode()),
    st.sampled_from([STS_ANSWER.encode(), as_json().encode(), b"session", b"role"]),
)
ANSWERS = st.builds(Answer, st.one_of(st.just(200), st.integers(100, 599)), st.just({}), BODIES)


@given(st.sampled_from([WEB, FULL, {}]), st.text(max_size=10), st.lists(ANSWERS, min_size=3, max_size=3))
def test_no_answer_makes_an_exchange_raise(environ: dict[str, str], token: str, answers: list[Answer]) -> None:
    source = named(environ)
    assert not isinstance(source, Fixed)
    requests, outcome = carried_out(source.exchange(token, NOW), answers)
    assert len(requests) <= 3
    if isinstance(outcome, Temporary):
        assert outcome.credentials == FOUND
    else:
        assert outcome.reason.isprintable()
        assert KEY not in outcome.reason


@given(
    st.dictionaries(st.sampled_from([*KEYS, *WEB, *RELATIVE, *FULL, "AWS_EC2_METADATA_SERVICE_ENDPOINT"]), st.text()),
    st.text(),
)
def test_no_environment_makes_the_choice_raise(environ: dict[str, str], region: str) -> None:
    source = source_of(environ, region)
    if not isinstance(source, Refusal | Fixed):
        assert urlsplit(source.url).hostname


def test_nothing_shows_a_secret() -> None:
    """repr goes into tracebacks and logs."""
    environ = {**FULL, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "own-token"}
    shown = [
        repr(source_of({**KEYS, "AWS_SESSION_TOKEN": SESSION}, REGION)),
        repr(source_of(environ, REGION)),
        repr(source_of(RELATIVE, REGION)),
        repr(next(container(environ).exchange("own-token", NOW))),
        repr(next(web_identity().exchange("own-token", NOW))),
        repr(Temporary(FOUND, END_S)),
        str(Temporary(FOUND, END_S)),
    ]
    for secret in ("own-secret", "own-token", "0b6e", SECRET, SESSION, KEY):
        assert not [one for one in shown if secret in one]
