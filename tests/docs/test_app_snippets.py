"""The snippets of docs/apps.md, as they stand there, against a relay with the configuration of that page."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.docs.blocks import ROOT, blocks_of, marked
from tests.docs.configs import fragments, whole
from tests.support.relay import RelayProcess, get, time_line, upstream_keys, write_config
from tests.support.upstream import Received, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = ROOT / "docs/apps.md"
SNIPPETS = marked(PAGE)
PHPMAILER = "/usr/share/php/libphp-phpmailer/autoload.php"
SYMFONY = [f"/usr/share/php/Symfony/Component/{one}/autoload.php" for one in ("Mailer", "Mime")]
JARS = "/usr/share/java"
CLIENT = "198.51.100.7"
WITHIN_S = 40.0

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Sent:
    """One code that a snippet is to send."""

    to: str
    code: str
    key: str

    @property
    def arguments(self) -> tuple[str, str, str, str]:
        """What the snippets' functions take."""
        return self.to, self.code, self.key, CLIENT


@dataclass(frozen=True)
class World:
    relay: RelayProcess
    upstream: Upstream
    directory: Path

    def text(self, name: str) -> str:
        """A snippet with the ports of the running relay."""
        ports = [one.rpartition(":")[2] for one in self.relay.smtp_addresses]
        numbered = {"2525": ports[0], "2526": ports[1]}
        return re.sub(r"\b252[56]\b", lambda found: numbered[found[0]], SNIPPETS[name].text)

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    async def arrived(self, to: str) -> Received:
        await self.upstream.wait_until(lambda: any(to in one.recipients for one in self.upstream.messages))
        (only,) = [one for one in self.upstream.messages if to in one.recipients]
        return only

    async def message(self, to: str) -> Any:
        """The message as `log ID --json` shows it."""
        (found,) = (await get(self.relay, f"/api/messages?to={to}")).document
        return await time_line(self.relay, found["id"], "sent")


def sent() -> Sent:
    number = next(_numbers)
    return Sent(f"user{number}@example.net", str(812000 + number), f"login-{number}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("apps")
    (shown,) = [one for one in blocks_of(PAGE) if one.language == "yaml"]
    async with Upstream() as upstream:
        (fragment,) = fragments(shown.text)
        config = whole(fragment, {"ses": upstream_keys(upstream)})
        for listener in config["listen"]:
            listener["address"] = "127.0.0.1:0"
        upstreams = config.pop("upstreams")
        async with RelayProcess(write_config(directory, upstreams, **config, workers=0)) as relay:
            yield World(relay, upstream, directory)


async def run(world: World, *arguments: str, environment: Mapping[str, str] | None = None, given: str = "") -> str:
    """A program's output. Skips where it isn't installed; fails where it ends with another code than 0."""
    path = shutil.which(arguments[0])
    if path is None:
        pytest.skip(f"no {arguments[0]}")
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    process = await asyncio.create_subprocess_exec(
        path, *arguments[1:],
        cwd=world.directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": os.pathsep.join(folders), **(environment or {})},
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(given.encode()), WITHIN_S)
    assert process.returncode == 0, out.decode("utf-8", "replace")
    return out.decode("utf-8", "replace")


async def assert_in_lane(
    world: World, one: Sent, lane: str = "otp", rule: str = "says-otp", sender: str = "no-reply@example.com"
) -> Received:
    """It arrived with its code and its sender, by that lane and rule, and without the steering fields."""
    received = await world.arrived(one.to)
    assert received.sender == sender
    assert one.code.encode() in received.content
    assert b"x-relay-" not in received.content.lower()
    message = await world.message(one.to)
    assert (message["lane"], message["rule"]) == (lane, rule)
    return received


async def test_each_code_block_of_the_page_is_run_or_says_why_not() -> None:
    settings = {"yaml", "ini", "properties", "console"}
    silent = [one.place for one in blocks_of(PAGE) if not (one.run or one.not_run or one.language in settings)]
    assert silent == []


async def test_the_page_says_which_snippets_the_tests_run() -> None:
    rows = dict(re.findall(r"^\| \[(.+?)\]\(#.+?\) \| (.+?) \|", PAGE.read_text(), re.MULTILINE))
    run_here = {one.heading for one in SNIPPETS.values()}
    assert {name for name, said in rows.items() if said.startswith("tests")} == run_here
    not_here = {one.heading for one in blocks_of(PAGE) if one.not_run}
    assert {name for name, said in rows.items() if said.startswith("not run here")} == not_here


# Django

MANY = """
import django
django.setup()
import app
from django.core.mail import EmailMessage
app.send_all([EmailMessage("Code", f"Your code is {code}", to=[to]) for to, code in {several!r}])
"""


def django(world: World, more: str) -> list[str]:
    pytest.importorskip("django")
    world.file("site/settings.py", world.text("django-settings"))
    world.file("site/app.py", world.text("django-code") + world.text("django-connection"))
    return [sys.executable, world.file("site/main.py", more)]


async def test_django(world: World) -> None:
    one = sent()
    program = django(world, f"import django\ndjango.setup()\nimport app\napp.send_code(*{one.arguments!r})\n")
    await run(world, *program, environment={"DJANGO_SETTINGS_MODULE": "settings"})
    received = await assert_in_lane(world, one)
    assert b"From: Example <no-reply@example.com>" in received.content


async def test_djangos_kept_connection_carries_all_messages(world: World) -> None:
    several = [sent() for _ in range(3)]
    before = world.relay.stderr.count("event=accepted")
    program = django(world, MANY.format(several=[(one.to, one.code) for one in several], code="{code}"))
    await run(world, *program, environment={"DJANGO_SETTINGS_MODULE": "settings"})
    for one in several:
        await assert_in_lane(world, one, rule="looks-like-a-code")
    assert world.relay.stderr.count("event=accepted") == before + 3


async def test_a_second_try_with_the_same_key_sends_nothing(world: World) -> None:
    one = sent()
    program = django(world, f"import django\ndjango.setup()\nimport app\napp.send_code(*{one.arguments!r})\n")
    for _ in range(2):
        await run(world, *program, environment={"DJANGO_SETTINGS_MODULE": "settings"})
    await assert_in_lane(world, one)  # `arrived` wants it once
    assert "event=repeated" in world.relay.stderr


# PHP

PHP_CALL = "\nforeach (%s as $one) { %s(...$one); }\n"


def php_array(several: Sequence[Sent]) -> str:
    return "[" + ", ".join("[" + ", ".join(f"'{one}'" for one in each.arguments) + "]" for each in several) + "]"


@pytest.mark.real
async def test_phpmailer_over_one_connection(world: World) -> None:
    if not Path(PHPMAILER).exists():
        pytest.skip("no PHPMailer (Debian: libphp-phpmailer)")
    several = [sent(), sent()]
    program = world.text("phpmailer") + PHP_CALL % (php_array(several), "send_code")
    await run(world, "php", world.file("phpmailer.php", f"<?php require '{PHPMAILER}';\n{program}"))
    for one in several:
        received = await assert_in_lane(world, one)
        assert received.recipients == (one.to,), "a user gets no code of another one"


@pytest.mark.real
@pytest.mark.parametrize("with_f", [True, False])
async def test_phps_mail(world: World, with_f: bool) -> None:
    one = sent()
    code = world.text("php-mail")
    if not with_f:
        code = code.replace(", '-f no-reply@example.com'", "").replace("'X-Relay-Lane' => 'otp',", "")
    ini = world.text("php-ini").replace("/opt/otp-relay/bin/", f"{Path(sys.executable).parent}/")
    program = world.file("mail.php", "<?php\n" + code + PHP_CALL % (php_array([one]), "send_code"))
    settings = world.file("php.ini", ini)
    where = {"OTP_RELAY_SUBMIT": world.relay.smtp_addresses[0]}
    await run(world, "php", "-c", settings, program, environment=where)
    if with_f:
        await assert_in_lane(world, one)
    else:
        received = await world.arrived(one.to)
        assert received.sender != "no-reply@example.com"
        assert (await world.message(one.to))["rule"] == "looks-like-a-code"


SYMFONY_MAIN = """<?php
require '%s'; require '%s';
%s
$transport = Symfony\\Component\\Mailer\\Transport::fromDsn('%s');
foreach (%s as $one) { sendCode(new Symfony\\Component\\Mailer\\Mailer($transport), ...$one); }
"""


@pytest.mark.real
async def test_symfony(world: World) -> None:
    if not all(Path(one).exists() for one in SYMFONY):
        pytest.skip("no Symfony Mailer (Debian: php-symfony-mailer)")
    (dsn,) = [one.text for one in blocks_of(PAGE) if one.heading == "Symfony" and one.language == "ini"]
    place = dsn.strip().removeprefix("MAILER_DSN=").replace("2525", str(world.relay.smtp[1]))
    several = [sent(), sent()]
    program = SYMFONY_MAIN % (*SYMFONY, world.text("symfony"), place, php_array(several))
    await run(world, "php", world.file("symfony.php", program))
    for one in several:
        await assert_in_lane(world, one)


WORDPRESS = """<?php
define('ABSPATH', '%s/'); define('WPINC', 'wp-includes'); define('WP_CONTENT_DIR', '/tmp'); define('WP_DEBUG', false);
foreach (['load', 'plugin', 'class-wp-error', 'functions', 'formatting', 'kses', 'l10n', 'http', 'pluggable'] as $one) {
    require_once ABSPATH . "wp-includes/$one.php";
}
add_filter('pre_option_blog_charset', function () { return 'UTF-8'; });
function get_bloginfo() { return 'UTF-8'; }
function network_home_url() { return 'http://site.example.com'; }
require '%s';
%s
"""


@pytest.mark.real
async def test_wordpress(world: World) -> None:
    home = next((one for one in WORDPRESS_FOLDERS if (one / "wp-includes/pluggable.php").exists()), None)
    if home is None:
        pytest.skip("no WordPress (Debian: wordpress)")
    one = sent()
    plugin = world.file("otp-relay.php", world.text("wordpress"))
    program = world.text("wordpress-code") + PHP_CALL % (php_array([one]), "send_code")
    await run(world, "php", world.file("wordpress.php", WORDPRESS % (home, plugin, program)))
    received = await assert_in_lane(world, one)
    assert b"From: Example <no-reply@example.com>" in received.content


WORDPRESS_FOLDERS = [Path(os.environ.get("WORDPRESS", "/usr/share/wordpress"))]


# Others

NODE_MAIN = """
Promise.all(%s.map(one => sendCode(...one))).then(
  () => transport.close(), error => { console.error(error); process.exit(1); });
"""


@pytest.mark.real
async def test_nodemailer(world: World) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node")
    try:
        await run(world, "node", "-e", "require('nodemailer')")
    except AssertionError:
        pytest.skip("no nodemailer (npm)")
    several = [sent(), sent()]
    arguments = str([list(one.arguments) for one in several])
    await run(world, "node", world.file("nodemailer.js", world.text("nodemailer") + NODE_MAIN % arguments))
    for one in several:
        await assert_in_lane(world, one)


RUBY = """
require 'action_mailer'
class ApplicationMailer < ActionMailer::Base; end
config = Struct.new(:action_mailer).new(ActionMailer::Base)
%s
%s
CodeMailer.code(*%s).deliver_now
"""


@pytest.mark.real
async def test_rails(world: World) -> None:
    try:
        await run(world, "ruby", "-e", "require 'action_mailer'")
    except AssertionError:
        pytest.skip("no Action Mailer (Debian: ruby-actionmailer)")
    one = sent()
    program = RUBY % (world.text("rails-settings"), world.text("rails-code"), list(one.arguments))
    await run(world, "ruby", world.file("rails.rb", program))
    await assert_in_lane(world, one)


@pytest.mark.real
async def test_go(world: World) -> None:
    one = sent()
    values = ", ".join(f'"{each}"' for each in one.arguments)
    main = f"\nfunc main() {{\n\tif err := sendCode({values}); err != nil {{\n\t\tpanic(err)\n\t}}\n}}\n"
    await run(
        world, "go", "run", world.file("go/main.go", world.text("go") + main), environment={"GOFLAGS": "-mod=mod"}
    )
    await assert_in_lane(world, one)


JAVA = """
public class Main {
    public static void main(String[] arguments) throws Exception {
        org.springframework.mail.javamail.JavaMailSenderImpl sender =
            new org.springframework.mail.javamail.JavaMailSenderImpl();
        sender.setHost(arguments[0]);
        sender.setPort(Integer.parseInt(arguments[1]));
        Codes.send(sender, arguments[2], arguments[3], arguments[4], arguments[5]);
    }
}
"""


@pytest.mark.real
async def test_spring(world: World) -> None:
    """Debian's Spring is of the time of `javax.mail`."""
    wanted = ["spring3-context.support", "spring3-core", "spring3-beans", "javax.mail", "javax.activation"]
    jars = [f"{JARS}/{one}.jar" for one in [*wanted, "commons-logging"]]
    missing = [one for one in jars if not Path(one).exists()]
    if missing or shutil.which("javac") is None:
        pytest.skip("no Java with Spring's mail support (Debian: libspring-context-support-java, libmail-java)")
    one, host_port = sent(), world.relay.smtp
    sources = [
        world.file("java/Codes.java", world.text("spring").replace("jakarta.mail", "javax.mail")),
        world.file("java/Main.java", JAVA),
    ]
    path = os.pathsep.join([*jars, str(world.directory / "java")])
    await run(world, "javac", "-cp", path, "-d", str(world.directory / "java"), *sources)
    await run(world, "java", "-cp", path, "Main", host_port[0], str(host_port[1]), *one.arguments)
    await assert_in_lane(world, one)


async def test_sendmail(world: World) -> None:
    one = sent()
    script = world.text("sendmail").replace("user@example.net", one.to).replace("123456", one.code)
    await run(world, "sh", "-e", "-c", script, environment={"OTP_RELAY_SUBMIT": world.relay.smtp_addresses[0]})
    await assert_in_lane(world, one)


async def test_sendmail_without_f_and_without_from_reaches_no_rule(world: World) -> None:
    """The trap that the page names."""
    one = sent()
    script = (
        f"printf 'To: {one.to}\\nSubject: hello\\n\\nYour parcel {one.code} has left\\n' | otp-relay-sendmail -t -i"
    )
    await run(world, "sh", "-e", "-c", script, environment={"OTP_RELAY_SUBMIT": world.relay.smtp_addresses[0]})
    received = await world.arrived(one.to)
    assert re.fullmatch(r"\w+@\S+", received.sender)
    assert (await world.message(one.to))["lane"] == "bulk"


@pytest.mark.real
async def test_msmtp(world: World) -> None:
    one = sent()
    settings = world.file("msmtprc", world.text("msmtprc"))
    Path(settings).chmod(0o600)
    script = world.text("msmtp").replace("user@example.net", one.to).replace("123456", one.code)
    script = script.replace("msmtp -t", f"msmtp --file={settings} -t")
    if shutil.which("msmtp") is None:
        pytest.skip("no msmtp")
    await run(world, "sh", "-e", "-c", script)
    await assert_in_lane(world, one)


@pytest.mark.parametrize(
    ("field", "lane", "rule"),
    [("X-Relay-Lane: bulk", "bulk", "says-bulk"), ("X-Other: 1", "otp", "auth-sender")],
)
async def test_the_rules_of_the_page(world: World, field: str, lane: str, rule: str) -> None:
    one = sent()
    mail = f"From: no-reply@auth.example.com\nTo: {one.to}\nSubject: hi\n{field}\n\nYour code is {one.code}\n"
    where = {"OTP_RELAY_SUBMIT": world.relay.smtp_addresses[0]}
    program = str(Path(sys.executable).with_name("otp-relay-sendmail"))
    await run(world, program, "-t", "-i", "-f", "no-reply@auth.example.com", environment=where, given=mail)
    await assert_in_lane(world, one, lane, rule, sender="no-reply@auth.example.com")


async def test_the_listener_for_products_that_set_no_fields(world: World) -> None:
    """It takes any login, and all its mail goes by the lane that it pins."""
    one, address = sent(), world.relay.smtp_addresses[1]
    program = textwrap.dedent(f"""
        import smtplib
        with smtplib.SMTP("127.0.0.1", {address.rpartition(":")[2]}, timeout=20) as client:
            client.login("any user", "any password")
            client.sendmail("no-reply@example.com", ["{one.to}"], "Subject: hi\\n\\nReset: {one.code}")
    """)
    await run(world, sys.executable, "-c", program)
    await assert_in_lane(world, one, rule="listener")
