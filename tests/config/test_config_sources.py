"""app.conf, the environment and keywords; which of them wins."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from cfqueue.config import Config, ConfigurationWarning, ConsumerConfig, Producer, load
from cfqueue.errors import ConfigurationError
from cfqueue.limits import CLOUDFLARE

KEY = "cfqueue_database_url"


def error_of(**options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(**({"environ": {}} | options))
    return str(caught.value)


class TestPrecedence:
    FILE: ClassVar[dict[str, Any]] = {"cfqueue": {"database_url": "file://"}}
    CONF: ClassVar[dict[str, str]] = {KEY: "conf://"}
    ENVIRON: ClassVar[dict[str, str]] = {"CFQUEUE_DATABASE_URL": "environment://"}

    def test_nothing_is_the_default(self) -> None:
        assert load(environ={}).database_url is None

    def test_a_file_wins_over_the_default(self) -> None:
        assert load(self.FILE, environ={}).database_url == "file://"

    def test_app_conf_wins_over_the_file(self) -> None:
        assert load(self.FILE, overrides=self.CONF, environ={}).database_url == "conf://"

    def test_the_environment_wins_over_app_conf(self) -> None:
        assert load(self.FILE, overrides=self.CONF, environ=self.ENVIRON).database_url == "environment://"

    def test_a_keyword_wins_over_the_environment(self) -> None:
        keywords = {"database_url": "keyword://"}
        config = load(self.FILE, overrides=self.CONF, environ=self.ENVIRON, keywords=keywords)
        assert config.database_url == "keyword://"

    def test_a_keyword_of_none_was_not_given(self) -> None:
        assert load(self.FILE, environ={}, keywords={"database_url": None}).database_url == "file://"

    def test_the_table_of_an_environment_wins_over_that_of_the_top_level_key_by_key(self) -> None:
        top = {"database_url": "top://", "broker_url": "top://"}
        data = {"cfqueue": top, "env": {"staging": {"cfqueue": {"database_url": "staging://"}}}}
        config = load(data, env="staging", environ={})
        assert (config.database_url, config.broker_url) == ("staging://", "top://")

    def test_the_processes_own_environment_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CFQUEUE_DATABASE_URL", "own://")
        assert load().database_url == "own://"


class TestChoosingTheFile:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> dict[str, str]:
        for name in ("conf", "environment", "argument"):
            (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\n[env.{name}]\n')
        return {path.stem: str(path) for path in tmp_path.iterdir()}

    def test_app_conf_then_environment_then_argument(self, paths: dict[str, str]) -> None:
        conf = {"cfqueue_config": paths["conf"]}
        environ = {"CFQUEUE_CONFIG": paths["environment"]}
        assert load(overrides=conf, environ={}).name == "conf"
        assert load(overrides=conf, environ=environ).name == "environment"
        assert load(paths["argument"], overrides=conf, environ=environ).name == "argument"

    def test_the_environment_of_the_file_is_chosen_in_the_same_order(self) -> None:
        data: dict[str, Any] = {"env": {"conf": {}, "environment": {}, "argument": {}}}
        conf, environ = {"cfqueue_env": "conf"}, {"CFQUEUE_ENV": "environment"}
        assert load(data, overrides=conf, environ={}).env == "conf"
        assert load(data, overrides=conf, environ=environ).env == "environment"
        assert load(data, overrides=conf, environ=environ, env="argument").env == "argument"
        assert load(data, overrides=conf, environ=environ, env="").env is None


class TestAppConf:
    def test_other_keys_are_left_alone(self) -> None:
        assert load(overrides={"broker_url": 5, "task_routes": {}}, environ={}) == Config()

    def test_capitals_are_taken_as_from_a_django_settings_module(self) -> None:
        assert load(overrides={"CFQUEUE_DATABASE_URL": "a://"}, environ={}).database_url == "a://"

    def test_none_is_not_set(self) -> None:
        assert load(overrides={KEY: None}, environ={}) == Config()

    def test_an_unknown_key_warns_with_a_suggestion(self) -> None:
        with pytest.warns(ConfigurationWarning, match="cfqueue_databse_url .* 'cfqueue_database_url'"):
            load(overrides={"cfqueue_databse_url": "a://"}, environ={})

    def test_a_wrong_value_names_the_key_and_the_range(self) -> None:
        text = error_of(overrides={"cfqueue_max_message_bytes": "1000"})
        assert text == (
            "app.conf: cfqueue_max_message_bytes is '1000'; it must be a whole number of bytes from 1 to "
            "1,000,000,000. Did you mean 1000, without quotes?"
        )

    def test_queues_are_set_one_by_one(self) -> None:
        queues = {"jobs": {"max_retries": 5, "dead_letter_queue": None, "delivery_delay": 7}}
        config = load(overrides={"cfqueue_queues": queues}, environ={})
        assert config.consumers == {"jobs": ConsumerConfig("jobs", max_retries=5, dead_letter_queue=None)}
        assert config.producers == {"JOBS": Producer("JOBS", "jobs", 7)}

    def test_queues_win_over_the_file_setting_by_setting(self) -> None:
        data = {
            "queues": {
                "producers": [{"binding": "WORK", "queue": "jobs"}],
                "consumers": [{"queue": "jobs", "max_retries": 1, "max_batch_size": 20}],
            }
        }
        queues = {"jobs": {"max_retries": 5, "delivery_delay": 7}}
        config = load(data, overrides={"cfqueue_queues": queues}, environ={})
        consumer = config.consumers["jobs"]
        assert (consumer.max_retries, consumer.max_batch_size) == (5, 20)
        assert config.producers == {"WORK": Producer("WORK", "jobs", 7)}
        assert consumer.origins == {
            "max_retries": "app.conf: cfqueue_queues['jobs']['max_retries']",
            "max_batch_size": "config: queues.consumers[0].max_batch_size",
        }

    def test_a_queue_can_be_given_a_binding(self) -> None:
        config = load(overrides={"cfqueue_queues": {"jobs": {"binding": "WORK"}}}, environ={})
        assert config.producers == {"WORK": Producer("WORK", "jobs")}
        assert config.consumers == {}

    def test_a_binding_that_is_taken_is_refused(self) -> None:
        queues = {"jobs": {"binding": "WORK"}, "mail": {"binding": "WORK"}}
        text = error_of(overrides={"cfqueue_queues": queues})
        assert "cfqueue_queues['mail']['binding'] is 'WORK', which app.conf: cfqueue_queues['jobs']" in text
        text = error_of(overrides={"cfqueue_queues": queues, "cfqueue_vars": {"WORK": 1}})
        assert "which app.conf: cfqueue_vars['WORK'] uses already" in text

    @pytest.mark.parametrize(
        ("queues", "text"),
        [
            ({"my jobs": {}}, "app.conf: cfqueue_queues: the key is 'my jobs'; it must be the name"),
            ({"jobs": 5}, "app.conf: cfqueue_queues['jobs'] is 5; it must be a table"),
            ({"jobs": {"max_retries": 101}}, "cfqueue_queues['jobs']['max_retries'] is 101; it must be"),
            ([], "app.conf: cfqueue_queues is []; it must be a table"),
            ({"jobs": {"dead_letter_queue": "jobs"}}, "a queue cannot be its own dead-letter queue"),
        ],
    )
    def test_a_wrong_value_names_queue_and_key(self, queues: Any, text: str) -> None:
        assert text in error_of(overrides={"cfqueue_queues": queues})

    def test_an_unknown_setting_of_a_queue_warns(self) -> None:
        with pytest.warns(ConfigurationWarning, match="'max_retry'.*Did you mean 'max_retries'"):
            load(overrides={"cfqueue_queues": {"jobs": {"max_retry": 1}}}, environ={})

    def test_vars_take_the_place_of_the_files(self) -> None:
        data = {"vars": {"A": 1, "B": 1}}
        assert load(data, overrides={"cfqueue_vars": {"B": 2}}, environ={}).vars == {"A": 1, "B": 2}


class TestEnvironment:
    def test_numbers_are_read_from_text(self) -> None:
        config = load(environ={"CFQUEUE_MAX_DELAY_SECONDS": " 90000 "})
        assert config.limits.delay_seconds == 90_000

    @pytest.mark.parametrize("text", ["1.5", "ten", "true", "0x10", "1_000", "-1", "0", "9" * 5_000])
    def test_what_is_not_a_number_in_range_is_refused(self, text: str) -> None:
        said = error_of(environ={"CFQUEUE_MAX_MESSAGE_BYTES": text})
        assert said.startswith("environment: CFQUEUE_MAX_MESSAGE_BYTES is ")
        assert "from 1 to 1,000,000,000" in said

    def test_an_empty_variable_is_not_set(self) -> None:
        assert load(environ={"CFQUEUE_DATABASE_URL": "", "CFQUEUE_MAX_MESSAGE_BYTES": " "}) == Config()

    def test_tokens_are_separated_by_commas(self) -> None:
        assert load(environ={"CFQUEUE_API_TOKENS": "one, two,"}).api_tokens == ("one", "two")

    def test_every_variable_of_the_surface_is_known(self) -> None:
        config = load(
            environ={
                "CFQUEUE_BROKER_URL": "redis://",
                "CFQUEUE_DATABASE_URL": "sqlite://",
                "CFQUEUE_APP": "shop:cf",
                "CFQUEUE_API_TOKENS": "t",
                "CFQUEUE_ACCOUNT_ID": "a",
                "CFQUEUE_HOME": "/data",
            }
        )
        assert (config.broker_url, config.database_url, config.app) == ("redis://", "sqlite://", "shop:cf")
        assert (config.api_tokens, config.account_id, config.home) == (("t",), "a", "/data")

    def test_a_variable_that_resembles_a_known_one_warns(self) -> None:
        with pytest.warns(ConfigurationWarning, match="CFQUEUE_DATABASE_URI .* 'CFQUEUE_DATABASE_URL'"):
            load(environ={"CFQUEUE_DATABASE_URI": "a://"})

    @pytest.mark.parametrize(
        "variable",
        [
            "CFQUEUE_SERVICE_HOST",
            "CFQUEUE_SERVICE_PORT",
            "CFQUEUE_PORT",
            "CFQUEUE_PORT_8787_TCP_ADDR",
            "CFQUEUE_REQUIRE_SERVICES",
            "CFQUEUEX",
        ],
    )
    def test_other_peoples_variables_are_passed_over(self, variable: str) -> None:
        assert load(environ={variable: "tcp://10.0.0.1:8787"}) == Config()


class TestLimits:
    def test_cloudflares_apply_by_default(self) -> None:
        assert load(environ={}).limits == CLOUDFLARE

    def test_a_deployment_can_raise_them_everywhere(self) -> None:
        config = load(
            {"cfqueue": {"max_message_bytes": 1_000_000}},
            overrides={"cfqueue_max_send_batch_count": 1_000},
            environ={"CFQUEUE_MAX_SEND_BATCH_BYTES": "9000000"},
        )
        limits = config.limits
        assert (limits.message_bytes, limits.send_batch_count, limits.send_batch_bytes) == (
            1_000_000,
            1_000,
            9_000_000,
        )

    def test_a_batch_holds_at_least_one_message_of_the_largest_size(self) -> None:
        config = load(environ={"CFQUEUE_MAX_MESSAGE_BYTES": "1000000"})
        assert config.limits.send_batch_bytes == 1_000_000

    def test_a_batch_that_was_set_smaller_than_a_message_warns(self) -> None:
        with pytest.warns(ConfigurationWarning, match="CFQUEUE_MAX_SEND_BATCH_BYTES is 5, less than"):
            config = load(environ={"CFQUEUE_MAX_SEND_BATCH_BYTES": "5"})
        assert config.limits.send_batch_bytes == 5

    def test_a_longer_delay_allows_a_longer_retry_delay(self) -> None:
        data = {"queues": {"consumers": [{"queue": "jobs", "retry_delay": 86_401}]}}
        assert "from 0 to 86,400" in error_of(source=data)
        environ = {"CFQUEUE_MAX_DELAY_SECONDS": "100000"}
        assert load(data, environ=environ).consumers["jobs"].retry_delay == 86_401


class TestSecrets:
    def test_a_url_with_a_password_is_not_printed(self) -> None:
        config = load(environ={"CFQUEUE_BROKER_URL": "amqp://me:hunter2@h", "CFQUEUE_API_TOKENS": "hunter2"})
        assert "hunter2" not in repr(config)

    @pytest.mark.parametrize("key", ["cfqueue_broker_url", "cfqueue_database_url", "cfqueue_api_tokens"])
    def test_an_error_does_not_print_it_either(self, key: str) -> None:
        text = error_of(overrides={key: "me:hunter2@h"})
        assert "hunter2" not in text
        assert f"app.conf: {key} is a str (not shown)" in text


class TestConfigMadeByHand:
    def test_a_good_one_is_returned_as_it_is(self) -> None:
        config = Config(
            producers={"JOBS": Producer("JOBS", "jobs")},
            consumers={"jobs": ConsumerConfig("jobs", max_retries=5)},
        )
        assert load(config, environ={"CFQUEUE_DATABASE_URL": "a://"}) is config

    @pytest.mark.parametrize(
        ("config", "text"),
        [
            (Config(consumers={"jobs": ConsumerConfig("jobs", max_batch_size=0)}), "max_batch_size is 0"),
            (Config(consumers={"jobs": ConsumerConfig("mail")}), "queue is 'mail'; it must be the same"),
            (Config(consumers={"a b": ConsumerConfig("a b")}), "the key is 'a b'"),
            (
                Config(consumers={"jobs": ConsumerConfig("jobs", dead_letter_queue="jobs")}),
                "its own dead-letter queue",
            ),
            (Config(producers={"A": Producer("B", "jobs")}), "binding is 'B'; it must be the same"),
            (Config(producers={"A": Producer("A", "-")}), "queue is '-'"),
            (Config(producers={"A": Producer("A", "a", -1)}), "delivery_delay is -1"),
            (Config(database_url="nowhere"), "Config.database_url is a str (not shown)"),
        ],
    )
    def test_a_bad_one_is_refused(self, config: Config, text: str) -> None:
        assert text in error_of(source=config)

    def test_a_keyword_that_cfqueue_does_not_have_is_refused(self) -> None:
        assert "Did you mean 'database_url'?" in error_of(keywords={"database_uri": "a://"})
