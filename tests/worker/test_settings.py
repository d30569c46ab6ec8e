"""Settings: where they come from, and that a wrong one is named at start."""

from pathlib import Path

import pytest

from dicom_io.errors import SettingsError
from dicom_io.result_profile import profile_text
from worker.addresses import AllowedPeer, Target
from worker.settings import Settings
from worker.settings_loading import load_settings, load_settings_with_origins, shown_value


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_any_setting_everything_is_embedded_and_local(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.home == tmp_path / "multimix-data"
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/multimix-data/node.sqlite"
    assert (settings.listener_host, settings.listener_port) == ("127.0.0.1", 11112)
    assert settings.broker_url is None
    assert settings.targets == ()


def test_the_environment_wins_over_the_file_and_origins_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('quiet_seconds = 1.5\nae_title = "FILE"\ntargets = ["PACS@h:104"]\n')
    monkeypatch.setenv("MULTIMIX_SETTINGS_FILE", str(file))
    monkeypatch.setenv("MULTIMIX_AE_TITLE", "ENV")
    loaded = load_settings_with_origins()
    assert (loaded.settings.quiet_seconds, loaded.settings.ae_title) == (1.5, "ENV")
    assert loaded.settings.targets == (Target(name="PACS", ae_title="PACS", host="h", port=104),)
    assert loaded.origins["quiet_seconds"] == f"file {file}"
    assert loaded.origins["ae_title"] == "environment"
    assert loaded.origins["device"] == "default"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("PACS@127.0.0.1:4242", [("PACS", "PACS", "127.0.0.1", 4242)]),
        ("A@x:1, second=B@[::1]:2", [("A", "A", "x", 1), ("second", "B", "::1", 2)]),
        ('["A@x:1"]', [("A", "A", "x", 1)]),
        ('[{"ae_title": "A", "host": "x", "port": 1}]', [("A", "A", "x", 1)]),
        ("", []),
    ],
)
def test_targets_are_written_as_text_or_json(
    monkeypatch: pytest.MonkeyPatch, written: str, expected: list[tuple[str, str, str, int]]
) -> None:
    monkeypatch.setenv("MULTIMIX_TARGETS", written)
    targets = load_settings().targets
    assert [(t.name, t.ae_title, t.host, t.port) for t in targets] == expected
    monkeypatch.setenv("MULTIMIX_TARGETS", ", ".join(map(str, targets)))
    assert load_settings().targets == targets


@pytest.mark.parametrize(
    ("written", "shown", "results"),
    [
        ("PACS@h:104", "PACS@h:104 seg+sc", "seg+sc"),
        ("PACS@h:104 sr+seg", "PACS@h:104 seg+sr", "seg+sr"),
        ("WEB=https://h/dicom-web/  gsps", "WEB=https://h/dicom-web gsps", "gsps"),
        ("https://h:8042/dicom-web", "https://h:8042/dicom-web seg+sc", "seg+sc"),
        (
            '{"ae_title": "A", "host": "x", "port": 1, "results": ["sc", "sr"]}',
            "A@x:1 sc+sr",
            "sc+sr",
        ),
        ('{"url": "http://h/w", "results": "labelmap"}', "http://h/w labelmap", "labelmap"),
    ],
)
def test_each_target_names_the_results_that_it_gets(
    monkeypatch: pytest.MonkeyPatch, written: str, shown: str, results: str
) -> None:
    monkeypatch.setenv("MULTIMIX_TARGETS", f"[{written}]" if written[0] == "{" else written)
    settings = load_settings()
    assert shown_value(settings, "targets") == shown
    assert profile_text(settings.targets[0].results) == results
    monkeypatch.setenv("MULTIMIX_TARGETS", shown)
    assert load_settings().targets == settings.targets


def test_allowed_peers_name_an_address_or_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMIX_ALLOWED_PEERS", "CT1@10.0.0.0/24,CT2@192.168.1.5,CT3@*")
    assert load_settings().allowed_peers == (
        AllowedPeer(ae_title="CT1", network="10.0.0.0/24"),
        AllowedPeer(ae_title="CT2", network="192.168.1.5/32"),
        AllowedPeer(ae_title="CT3", network="*"),
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MULTIMIX_LISTENER_PORT", "eleven", "MULTIMIX_LISTENER_PORT .*valid integer"),
        ("MULTIMIX_LISTENER_PORT", "70000", "MULTIMIX_LISTENER_PORT"),
        ("MULTIMIX_AE_TITLE", "A\\B", "MULTIMIX_AE_TITLE .*no backslash"),
        ("MULTIMIX_AE_TITLE", "SEVENTEEN_LETTERS", "MULTIMIX_AE_TITLE .*1 to 16"),
        ("MULTIMIX_TARGETS", "PACS:104", "MULTIMIX_TARGETS .*AE_TITLE@HOST:PORT"),
        ("MULTIMIX_TARGETS", "A@x:1,A@y:2", "different names"),
        ("MULTIMIX_TARGETS", "A@x:1 seg+pdf", "MULTIMIX_TARGETS .*sr; got pdf"),
        ("MULTIMIX_TARGETS", "A@x:1 seg sc", "MULTIMIX_TARGETS .*seg.sc"),
        ("MULTIMIX_TARGETS", "W=https://me:geheim@h/w", "MULTIMIX_TARGETS .*no user, password"),
        ("MULTIMIX_TARGETS", "W=ftp://h/w", "MULTIMIX_TARGETS .*https://HOST/PATH"),
        ("MULTIMIX_TARGETS", "W=https://h:99999/w", "MULTIMIX_TARGETS .*https://HOST"),
        ("MULTIMIX_TARGETS", '[{"ae_title": "A", "url": "http://h"}]', "or else a url"),
        ("MULTIMIX_TARGETS", '["A@x:1"', "MULTIMIX_TARGETS .*JSON"),
        ("MULTIMIX_ALLOWED_PEERS", "CT1@somewhere", "MULTIMIX_ALLOWED_PEERS .*address"),
        ("MULTIMIX_DATABASE_URL", "mysql://u:secret@h/d", "MULTIMIX_DATABASE_URL .*postgresql"),
        ("MULTIMIX_BROKER_URL", "amqp://u:secret@h", "MULTIMIX_BROKER_URL .*redis"),
        ("MULTIMIX_LISTNER_PORT", "1", "did you mean MULTIMIX_LISTENER_PORT"),
        ("MULTIMIX_READING_TIME_LIMIT_SECONDS", "120", "below visibility_timeout_seconds"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=message) as failure:
        load_settings()
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("quiet_second = 1", "did you mean quiet_seconds"),
        ("quiet_seconds = ", "not valid TOML"),
        ('quiet_seconds = "x"', "MULTIMIX_QUIET_SECONDS .file .*multimix.toml"),
    ],
)
def test_a_wrong_settings_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "multimix.toml").write_text(content)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_a_settings_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMIX_SETTINGS_FILE", "missing.toml")
    with pytest.raises(SettingsError, match=r"missing\.toml cannot be read"):
        load_settings()


def test_passwords_in_a_query_are_masked_too() -> None:
    settings = Settings(
        database_url="postgresql+psycopg://db/node?password=geheim&sslpassword=geheim&sslmode=require",
        broker_url="redis://broker:6379/0?password=geheim",
    )
    shown = [shown_value(settings, name) for name in ("database_url", "broker_url")]
    assert "geheim" not in "".join(shown)
    assert "sslmode=require" in shown[0]


def test_passwords_are_masked_where_settings_are_shown() -> None:
    settings = Settings(
        database_url="postgresql+psycopg://node:geheim@db/multimix",
        broker_url="redis://:geheim@broker:6379/0",
    )
    assert shown_value(settings, "database_url") == "postgresql+psycopg://node:***@db/multimix"
    assert shown_value(settings, "broker_url") == "redis://:***@broker:6379/0"


def test_the_home_folder_is_private(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "node")
    settings.prepare_home()
    assert settings.home.stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="MULTIMIX_HOME"):
        Settings(home=tmp_path / "file" / "home").prepare_home()
